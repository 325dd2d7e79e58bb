//! A DNS server that misbehaves on demand: what tests of the tracer need and no real server offers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use hickory_server::proto::op::{Message, MessageType};
use hickory_server::proto::rr::LowerName;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::zone::Zone;
use super::{dns, ready, udp_socket};
use crate::lab::Error;

/// How to misbehave. Each lie spoils an otherwise correct answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// Answer from another address or port than was asked
    OtherSource,
    /// Answer every query twice
    Twice,
    /// Answer late
    Late,
    /// Flip the case of every letter of the question (0x20)
    FlipCase,
    /// Cut the last record short
    Malformed,
    /// Set TC and leave the records out
    Truncated,
    /// Answer with the id plus one
    WrongId,
}

/// Lies over UDP and serves honestly over TCP until killed. `from` is for [`Lie::OtherSource`].
pub(super) async fn serve(
    listen: Vec<SocketAddr>,
    lie: Lie,
    delay: Duration,
    from: Option<SocketAddr>,
) -> Result<(), Error> {
    let zone = Arc::new(Zone::new());
    let mut honest = dns::tcp_only(&listen, Arc::clone(&zone))?;
    let mut serving = JoinSet::new();
    for address in listen {
        let liar = Liar {
            socket: udp_socket(address)?,
            other: udp_socket(from.unwrap_or(SocketAddr::new(address.ip(), 0)))?,
            zone: Arc::clone(&zone),
            lie,
            delay,
        };
        serving.spawn(Arc::new(liar).run());
    }
    ready()?;
    honest.block_until_done().await?;
    Ok(())
}

struct Liar {
    socket: UdpSocket,
    /// Answers of [`Lie::OtherSource`] leave from here.
    other: UdpSocket,
    zone: Arc<Zone>,
    lie: Lie,
    delay: Duration,
}

impl Liar {
    async fn run(self: Arc<Self>) {
        let mut query = [0; 4096];
        let mut answering = JoinSet::new();
        loop {
            // An error is that of an earlier answer (port unreachable): nothing to do about it.
            if let Ok((length, client)) = self.socket.recv_from(&mut query).await
                && let Some(answer) = honest_answer(&self.zone, &query[..length])
            {
                answering.spawn(Arc::clone(&self).send(answer, client));
            }
            while answering.try_join_next().is_some() {}
        }
    }

    async fn send(self: Arc<Self>, answer: Message, client: SocketAddr) {
        let Some(bytes) = spoil(self.lie, answer) else {
            return;
        };
        let (socket, times) = match self.lie {
            Lie::OtherSource => (&self.other, 1),
            Lie::Twice => (&self.socket, 2),
            _ => (&self.socket, 1),
        };
        if self.lie == Lie::Late {
            tokio::time::sleep(self.delay).await;
        }
        for _ in 0..times {
            drop(socket.send_to(&bytes, client).await);
        }
    }
}

/// What an honest server would say; `None` for what is not a query with a question.
fn honest_answer(zone: &Zone, query: &[u8]) -> Option<Message> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let (code, records) = zone.answer(&LowerName::from(question.name()), question.query_type());
    let mut answer = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.response_code = code;
    answer.add_answers(records.cloned());
    answer.add_query(question);
    Some(answer)
}

/// The answer's bytes, spoiled where the lie is in them; `None` when it cannot be encoded.
fn spoil(lie: Lie, mut answer: Message) -> Option<Vec<u8>> {
    match lie {
        Lie::WrongId => answer.metadata.id = answer.metadata.id.wrapping_add(1),
        Lie::Truncated => {
            answer.metadata.truncation = true;
            answer.answers.clear();
        }
        _ => {}
    }
    let mut bytes = answer.to_vec().ok()?;
    match lie {
        Lie::FlipCase => flip_case(&mut bytes),
        // Two bytes of the last record's address are missing.
        Lie::Malformed => bytes.truncate(bytes.len() - 2),
        _ => {}
    }
    Some(bytes)
}

/// Flips the letters of the question's name, which starts after the header of 12 bytes (RFC 1035 section 4.1).
fn flip_case(bytes: &mut [u8]) {
    let mut at = 12;
    while let Some(length @ 1..=63) = bytes.get(at).copied() {
        let end = at + 1 + usize::from(length);
        for byte in bytes.iter_mut().take(end).skip(at + 1) {
            if byte.is_ascii_alphabetic() {
                *byte ^= 0x20;
            }
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::Query;
    use hickory_server::proto::rr::{Name, RecordType};

    use super::*;

    fn spoiled(lie: Lie) -> Vec<u8> {
        let mut query = Message::query();
        let name = Name::from_ascii("host1.lab.test.").unwrap();
        query.add_query(Query::query(name, RecordType::A));
        let answer = honest_answer(&Zone::new(), &query.to_vec().unwrap()).unwrap();
        spoil(lie, answer).unwrap()
    }

    #[test]
    fn flipped_case_changes_letters_and_leaves_lengths_and_digits() {
        assert_eq!(
            &spoiled(Lie::FlipCase)[12..28],
            b"\x05HOST1\x03LAB\x04TEST\0"
        );
    }

    #[test]
    fn malformed_answer_does_not_parse_and_truncated_one_has_no_records() {
        assert!(Message::from_vec(&spoiled(Lie::Malformed)).is_err());
        let truncated = Message::from_vec(&spoiled(Lie::Truncated)).unwrap();
        assert!(truncated.metadata.truncation && truncated.answers.is_empty());
    }
}
