//! What one captured DNS message says.
//!
//! [`Peek`] is the hot path: header and first question in one pass, no allocation. [`whole`] and [`edns`] walk a message to
//! its end and are asked only when somebody wants the answer. Everything works on captures that may end early. What a
//! message *means* (which query it answers, whether it is late) is not known here.

mod edns;
mod name;
mod whole;

#[cfg(test)]
pub(super) mod corpus;
#[cfg(test)]
mod tests;

pub use self::{
    edns::{Edns, edns},
    whole::{Whole, whole},
};

/// Length of the header in bytes; the first question starts here (RFC 1035 §4.1.1).
pub const HEADER_LEN: usize = 12;

/// Why a capture cannot be read as a DNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The capture ends before the question does, and the message on the wire did not: nothing is wrong with the message.
    #[error("capture ends inside the header or the first question")]
    Cut,
    /// The message is shorter than a header (RFC 1035 §4.1.1).
    #[error("message is shorter than its 12-byte header")]
    Short,
    /// The counts promise more than the message holds.
    #[error("question runs over the end of the message")]
    Overrun,
    /// A label starts with the bits 01 or 10: longer than 63 bytes or of a retired type (RFC 6891 §5).
    #[error("label is longer than 63 bytes or of an unknown type")]
    LabelType,
    /// A name is longer than 255 bytes (RFC 1035 §3.1).
    #[error("name is longer than 255 bytes")]
    NameTooLong,
    /// A compression pointer points at or after itself; RFC 1035 §4.1.4 wants a prior name.
    #[error("compression pointer points forward")]
    PointerForward,
    /// A compression pointer points into the very labels that lead to it.
    #[error("compression pointer loops")]
    PointerLoop,
    /// A later question or a resource record runs over the end of the message, or holds a name or address that cannot be read.
    #[error("record runs over the end of the message or cannot be read")]
    Record,
}

/// How many entries each section claims to have (RFC 1035 §4.1.1); the message need not keep the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counts {
    /// QDCOUNT.
    pub questions: u16,
    /// ANCOUNT.
    pub answers: u16,
    /// NSCOUNT.
    pub authorities: u16,
    /// ARCOUNT.
    pub additionals: u16,
}

/// What was asked, small enough to be a map key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionKey {
    /// Hash of the wire name in lower case (RFC 4343), so that 0x20 case mixing does not matter.
    ///
    /// Not keyed: who chooses names can choose two with one hash. Use it beside a flow and an id, where that confuses only
    /// the chooser; merge statistics by the name itself.
    pub name: u64,
    /// QTYPE as on the wire.
    pub qtype: u16,
    /// QCLASS as on the wire; 1 is IN. In mDNS the top bit asks for a unicast answer (RFC 6762 §5.4).
    pub qclass: u16,
}

/// Header and first question of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// Message id; repeats as soon as its sender likes.
    pub id: u16,
    /// QR: this is a response.
    pub is_response: bool,
    /// OPCODE, 0..=15; 0 is QUERY. In UPDATE (5) the first question is the zone (RFC 2136 §2.3).
    pub opcode: u8,
    /// TC: the answer did not fit, the client should come back over TCP.
    pub tc: bool,
    /// The header's four bits of the rcode; [`edns`] knows the other eight.
    pub rcode: u8,
    /// What the sections claim to hold.
    pub counts: Counts,
    /// The first question; `None` when QDCOUNT is 0, as in a response to an unreadable query or in DSO (RFC 8490 §5.4).
    pub question: Option<QuestionKey>,
    /// Bytes the first name takes in the message, its final zero or pointer included; 0 without a question.
    pub name_len: u8,
}

impl Peek {
    /// Reads header and first question of a message of `original_len` bytes of which `captured` is the beginning.
    ///
    /// Takes 13 to 35 ns by the name's length, up to 48 on a busy core (`cargo bench --bench decode`).
    /// Records are not looked at.
    pub fn parse(captured: &[u8], original_len: usize) -> Result<Self, Malformed> {
        let cut = |malformed| match malformed {
            Malformed::Short | Malformed::Overrun
                if captured.len() < original_len && original_len >= HEADER_LEN =>
            {
                Malformed::Cut
            }
            other => other,
        };
        let (header, _) = captured
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(cut(Malformed::Short))?;
        // RFC 1035 §4.1.1: id; QR Opcode(4) AA TC RD; RA Z(3) RCODE(4); four counts.
        let [id_high, id_low, high, low, counts @ ..] = *header;
        let [
            qd_high,
            qd_low,
            an_high,
            an_low,
            ns_high,
            ns_low,
            ar_high,
            ar_low,
        ] = counts;
        let mut peek = Self {
            id: u16::from_be_bytes([id_high, id_low]),
            is_response: high & 0x80 != 0,
            opcode: high >> 3 & 0x0f,
            tc: high & 0x02 != 0,
            rcode: low & 0x0f,
            counts: Counts {
                questions: u16::from_be_bytes([qd_high, qd_low]),
                answers: u16::from_be_bytes([an_high, an_low]),
                authorities: u16::from_be_bytes([ns_high, ns_low]),
                additionals: u16::from_be_bytes([ar_high, ar_low]),
            },
            question: None,
            name_len: 0,
        };
        if peek.counts.questions > 0 {
            let name = name::read(captured, HEADER_LEN).map_err(cut)?;
            let fixed = captured
                .get(HEADER_LEN + usize::from(name.len)..)
                .and_then(<[u8]>::first_chunk::<4>);
            let [type_high, type_low, class_high, class_low] =
                *fixed.ok_or(cut(Malformed::Overrun))?;
            peek.name_len = name.len;
            peek.question = Some(QuestionKey {
                name: name.hash,
                qtype: u16::from_be_bytes([type_high, type_low]),
                qclass: u16::from_be_bytes([class_high, class_low]),
            });
        }
        Ok(peek)
    }

    /// More than one question: legal to write, answered by nobody (RFC 9619 forbids it in QUERY).
    pub fn multi_question(&self) -> bool {
        self.counts.questions > 1
    }

    /// First question's name as zone files write it (RFC 1035 §5.1), in the sender's letter case and without the final dot.
    ///
    /// The root is "."; without a question the text is empty. Printable ASCII whatever the wire holds.
    /// `captured` is what [`Peek::parse`] read.
    pub fn name(&self, captured: &[u8]) -> String {
        match self.question {
            Some(_) => name::presentation(captured, HEADER_LEN, usize::from(self.name_len)),
            None => String::new(),
        }
    }
}
