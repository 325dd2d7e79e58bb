//! A DNS server on this machine's 127.0.0.1 for guests to ask through a real network driver.
//!
//! Every question gets the same long answer: virtio-net keeps only a packet's first 128 bytes in
//! the linear part of an skb, so the rest of such an answer lies in page fragments.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// Header and the end of a question, RFC 1035 sections 4.1.1 and 4.1.2.
const HEADER: usize = 12;
const TYPE_AND_CLASS: usize = 4;

/// Addresses in an answer: 12 + question + 16 each makes it about 1,200 bytes, under the 1,232
/// that dig offers to take.
const ADDRESSES: u8 = 72;

/// Answers on a thread until this process ends.
pub(crate) struct Answerer {
    address: SocketAddr,
}

impl Answerer {
    /// Binds a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be bound.
    pub(crate) fn start() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("bind the guests' DNS server")?;
        let address = socket.local_addr()?;
        thread::spawn(move || {
            let mut query = [0; 512];
            loop {
                match socket.recv_from(&mut query) {
                    Ok((length, from)) => {
                        if let Some(reply) = reply(&query[..length]) {
                            // A guest that is gone needs no answer.
                            let _ = socket.send_to(&reply, from);
                        }
                    }
                    // An earlier answer met a closed port; the next question is as good.
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Ok(Self { address })
    }

    /// Port on 127.0.0.1, which guests reach as 10.0.2.2.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// `None` for what is no query with one question.
fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let names = query.get(HEADER..)?;
    let mut end = 0;
    while *names.get(end)? != 0 {
        end += usize::from(names[end]) + 1;
    }
    let question = names.get(..=end + TYPE_AND_CLASS)?;
    let mut reply = query.get(..2)?.to_vec();
    // QR, RD and RA; one question, ADDRESSES answers, nothing more.
    reply.extend([0x81, 0x80, 0, 1, 0, ADDRESSES, 0, 0, 0, 0]);
    reply.extend(question);
    for last in 1..=ADDRESSES {
        // The question's name by pointer, type A, class IN, 30 s, four bytes of 192.0.2.0/24.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, last]);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_gets_its_id_and_name_back_with_sixty_addresses() {
        let mut query = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend(b"\x01a\x04test\x00\x00\x01\x00\x01");
        query.extend([0; 11]); // the client's OPT record, which gets no answer
        let reply = reply(&query).unwrap();
        assert_eq!(reply[..8], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 60]);
        assert_eq!(&reply[12..24], b"\x01a\x04test\x00\x00\x01\x00\x01");
        assert_eq!(reply.len(), 12 + 12 + 60 * 16);
    }

    #[test]
    fn a_cut_query_gets_no_answer() {
        assert_eq!(
            reply(b"\xab\xcd\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00\x05ab"),
            None
        );
    }
}
