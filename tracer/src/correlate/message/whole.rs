//! What a message says from its first to its last record, by way of `domain`.
//!
//! For one message in a thousand (a worst case shown to the user, a recording), not for each.

use std::{net::IpAddr, time::Duration};

use domain::{
    base::{Message, ParsedName, ParsedRecord, Question, iana::Rtype},
    rdata::{A, Aaaa, Cname},
};

use super::{Edns, Malformed, Peek, edns};

/// A message that could be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Records in the answer section.
    pub answers: usize,
    /// A and AAAA records in the answer section, whoever owns them.
    pub addresses: usize,
    /// First of `addresses`.
    pub first_address: Option<IpAddr>,
    /// CNAMEs followed from the question's name, in the order of the answer section, as stub resolvers follow them.
    pub cnames: usize,
    /// Smallest TTL in the answer section; `None` without answers. A TTL with its top bit set counts as 0 (RFC 2181 §8).
    pub min_ttl: Option<Duration>,
    /// The OPT record; `None` when the sender speaks no EDNS.
    pub edns: Option<Edns>,
}

/// Reads all four sections of a message that was captured whole.
///
/// Bytes after the last record are ignored. Of a message captured in part, [`Malformed`] tells where it stopped.
pub fn whole(captured: &[u8]) -> Result<Whole, Malformed> {
    Peek::parse(captured, captured.len())?;
    let message = Message::from_slice(captured).map_err(|_| Malformed::Short)?;
    let (_, answers, authorities, additionals) =
        message.sections().map_err(|_| Malformed::Record)?;
    let mut told = Whole {
        answers: 0,
        addresses: 0,
        first_address: None,
        cnames: 0,
        min_ttl: None,
        edns: edns::of(message),
    };
    let mut next_owner = message.first_question().map(Question::into_qname);
    for answer in answers {
        let answer = answer.map_err(|_| Malformed::Record)?;
        told.count(&answer)?;
        let is_next = next_owner == Some(answer.owner());
        if let Some(target) = target(answer)?
            && is_next
        {
            told.cnames += 1;
            next_owner = Some(target);
        }
    }
    for record in authorities.chain(additionals) {
        record.map_err(|_| Malformed::Record)?;
    }
    Ok(told)
}

/// Where a CNAME leads; `None` for any other record.
fn target(answer: ParsedRecord<'_, [u8]>) -> Result<Option<ParsedName<&[u8]>>, Malformed> {
    let record = answer
        .into_record::<Cname<_>>()
        .map_err(|_| Malformed::Record)?;
    Ok(record.map(|record| record.into_data().into_cname()))
}

impl Whole {
    fn count(&mut self, answer: &ParsedRecord<'_, [u8]>) -> Result<(), Malformed> {
        let ttl = match answer.ttl().as_secs() {
            0x8000_0000.. => Duration::ZERO,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.answers += 1;
        self.min_ttl = Some(self.min_ttl.map_or(ttl, |least| least.min(ttl)));
        let address = match answer.rtype() {
            Rtype::A => answer
                .to_record::<A>()
                .map(|record| record.map(|a| IpAddr::V4(a.data().addr()))),
            Rtype::AAAA => answer
                .to_record::<Aaaa>()
                .map(|record| record.map(|a| IpAddr::V6(a.data().addr()))),
            _ => return Ok(()),
        };
        let address = address.map_err(|_| Malformed::Record)?;
        self.addresses += 1;
        self.first_address = self.first_address.or(address);
        Ok(())
    }
}
