//! Names on the wire: where one ends, its hash without letter case, its text.
//!
//! A first question's name is hardly ever compressed, so the fast path expects flat labels and hashes them where they lie;
//! a pointer sends it to [`Labels`]. A pointer must lead before the labels that lead to it, as BIND demands, so every
//! walk ends: positions only fall, and a name holds at most 255 bytes.

use std::hash::Hasher as _;

use rustc_hash::FxHasher;

use super::Malformed;

/// Longest name in bytes, length octets and root included (RFC 1035 §3.1).
const NAME_MAX: usize = 255;
/// Longest label in bytes; the two bits above tell what else starts here (RFC 1035 §4.1.4).
const LABEL_MAX: u8 = 63;
const POINTER: u8 = 0xc0;

/// One name as the hot path wants it.
pub(super) struct Name {
    /// Hash of the lower-cased, uncompressed wire form.
    pub(super) hash: u64,
    /// Bytes the name takes where it stands, 1..=255.
    pub(super) len: u8,
}

/// Reads the name at `start`.
pub(super) fn read(captured: &[u8], start: usize) -> Result<Name, Malformed> {
    let rest = captured.get(start..).unwrap_or_default();
    let room = rest.get(..NAME_MAX).unwrap_or(rest);
    let mut position = 0;
    loop {
        match room.get(position) {
            Some(0) => break,
            Some(length @ 1..=LABEL_MAX) => position += 1 + usize::from(*length),
            Some(POINTER..) => return read_compressed(captured, start),
            Some(_) => return Err(Malformed::LabelType),
            None if position >= NAME_MAX => return Err(Malformed::NameTooLong),
            None => return Err(Malformed::Overrun),
        }
    }
    let flat = room.get(..=position).ok_or(Malformed::Overrun)?;
    Ok(Name {
        hash: hash(flat),
        len: u8::try_from(flat.len()).map_err(|_| Malformed::NameTooLong)?,
    })
}

/// Reads a name with pointers by spelling it out first.
#[cold]
fn read_compressed(captured: &[u8], start: usize) -> Result<Name, Malformed> {
    let mut flat = [0; NAME_MAX];
    let mut used = 0;
    let mut labels = Labels::new(captured, start);
    for label in labels.by_ref() {
        let label = label?;
        let room = flat
            .get_mut(used..=used + label.len())
            .ok_or(Malformed::NameTooLong)?;
        if let [length, text @ ..] = room {
            *length = u8::try_from(label.len()).map_err(|_| Malformed::LabelType)?;
            text.copy_from_slice(label);
        }
        used += 1 + label.len();
    }
    // The root's own length octet is already zero in `flat`.
    let flat = flat.get(..=used).ok_or(Malformed::NameTooLong)?;
    Ok(Name {
        hash: hash(flat),
        len: u8::try_from(labels.end - start).map_err(|_| Malformed::NameTooLong)?,
    })
}

/// Hashes a flat wire name eight bytes at a time, letters in lower case.
///
/// Length octets pass through the lower-casing unharmed, being below 'A'. Padding the last word with zeros makes no two
/// names equal, since each ends with its root label.
fn hash(flat: &[u8]) -> u64 {
    let (words, tail) = flat.as_chunks::<8>();
    let mut hasher = FxHasher::default();
    for word in words {
        hasher.write_u64(lower(u64::from_le_bytes(*word)));
    }
    hasher.write_u64(lower(
        tail.iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    ));
    hasher.finish()
}

/// Lower-cases the ASCII letters among eight bytes.
const fn lower(word: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    let seven_bits = word & (EACH * 0x7f);
    // The top bit of a byte tells: at least 'A'; beyond 'Z'; was ASCII to begin with.
    let from_a = seven_bits + EACH * (0x80 - b'A' as u64);
    let beyond_z = seven_bits + EACH * (0x7f - b'Z' as u64);
    let upper = (from_a ^ beyond_z) & !word & (EACH * 0x80);
    word | upper >> 2 // 0x80 >> 2 is 'a' - 'A'
}

/// Spells the name at `start`, which takes `len` bytes there, as far as it can be read.
pub(super) fn presentation(captured: &[u8], start: usize, len: usize) -> String {
    let flat = captured.get(start..start + len);
    if let Some(text) = flat.and_then(plain) {
        return text;
    }
    let mut text = String::with_capacity(len);
    for label in Labels::new(captured, start).map_while(Result::ok) {
        if !text.is_empty() {
            text.push('.');
        }
        match str::from_utf8(label) {
            Ok(plain) if label.iter().all(|byte| PLAIN[usize::from(*byte)]) => text.push_str(plain),
            _ => label.iter().for_each(|byte| escape(*byte, &mut text)),
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// The text of a name as nearly all are: without pointers, and all bytes written as they are, so that only lengths
/// become dots; `None` of any other.
fn plain(flat: &[u8]) -> Option<String> {
    let [first, labels @ .., 0] = flat else {
        return None;
    };
    let mut text = labels.to_vec();
    let (mut next, mut dots) = (usize::from(*first), 0);
    while let Some(length) = text.get_mut(next) {
        next += 1 + usize::from(std::mem::replace(length, b'.'));
        dots += 1;
    }
    // After a pointer it would be beyond the end.
    let is_whole = next == text.len();
    let others = text.iter().filter(|byte| !PLAIN[usize::from(**byte)]);
    // All bytes are looked at, for nearly always all are plain but the dots.
    if !is_whole || others.count() != dots {
        return None;
    }
    String::from_utf8(text).ok()
}

/// Whether a byte of a label is written as it is.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'*');
        byte += 1;
    }
    plain
};

/// Writes one byte of a label: as it is, `\X` where zone files give it a meaning, `\DDD` where it does not print.
fn escape(byte: u8, text: &mut String) {
    match byte {
        b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
            text.extend(['\\', char::from(byte)]);
        }
        b'!'..=b'~' => text.push(char::from(byte)),
        _ => text.extend([
            '\\',
            digit(byte / 100),
            digit(byte / 10 % 10),
            digit(byte % 10),
        ]),
    }
}

const fn digit(value: u8) -> char {
    (b'0' + value) as char
}

/// The labels of one name without its root, pointers followed; ends after the first error.
struct Labels<'a> {
    captured: &'a [u8],
    position: usize,
    /// Where the labels now being read began; a pointer must lead before it.
    part: usize,
    /// Behind the name where it stands; grows until the first pointer.
    end: usize,
    followed: bool,
    done: bool,
}

impl<'a> Labels<'a> {
    const fn new(captured: &'a [u8], start: usize) -> Self {
        Self {
            captured,
            position: start,
            part: start,
            end: start,
            followed: false,
            done: false,
        }
    }

    /// Next label, empty for the root.
    fn label(&mut self) -> Result<&'a [u8], Malformed> {
        loop {
            let rest = self.captured.get(self.position..).unwrap_or_default();
            let (&first, rest) = rest.split_first().ok_or(Malformed::Overrun)?;
            let taken = match first {
                0..=LABEL_MAX => 1 + usize::from(first),
                POINTER.. => 2,
                _ => return Err(Malformed::LabelType),
            };
            let body = rest.get(..taken - 1).ok_or(Malformed::Overrun)?;
            if !self.followed {
                self.end = self.position + taken;
            }
            let (POINTER.., [low]) = (first, body) else {
                self.position += taken;
                return Ok(body);
            };
            self.follow(usize::from(u16::from_be_bytes([first & !POINTER, *low])))?;
        }
    }

    fn follow(&mut self, target: usize) -> Result<(), Malformed> {
        if target >= self.position {
            return Err(Malformed::PointerForward);
        }
        if target >= self.part {
            return Err(Malformed::PointerLoop);
        }
        (self.position, self.part, self.followed) = (target, target, true);
        Ok(())
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let label = self.label();
        self.done = !matches!(label, Ok([_, ..]));
        label.map_or_else(
            |malformed| Some(Err(malformed)),
            |label| (!label.is_empty()).then_some(Ok(label)),
        )
    }
}
