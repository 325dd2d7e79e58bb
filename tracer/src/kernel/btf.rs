//! The kernel's own description of its types (BTF): member offsets, enum names, and which
//! tracepoints there are. Reads /sys/kernel/btf; knows the format, not what is asked of it.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h of the kernel.

use std::{collections::HashMap, fs, path::Path};

use super::Error;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_KIND_*`, include/uapi/linux/btf.h.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// One BTF blob, or a module's on top of the kernel's.
#[derive(Debug, Default)]
pub struct Btf {
    /// All bytes of type records; a module's follow the kernel's.
    types: Vec<u8>,
    /// Where type N begins in `types`; type 0 is `void`.
    starts: Vec<u32>,
    strings: Vec<u8>,
}

impl Btf {
    /// The running kernel's, with that of `module` on top where it is loaded as a module.
    ///
    /// # Errors
    /// There is none, or it does not parse.
    pub fn of_kernel(module: &str) -> Result<Self, Error> {
        let bytes = fs::read(VMLINUX).map_err(|source| Error::NoBtf {
            path: VMLINUX,
            source,
        })?;
        let mut btf = Self {
            starts: vec![0],
            ..Self::default()
        };
        btf.append(&bytes).map_err(|what| Error::BadBtf {
            path: VMLINUX.to_owned(),
            what,
        })?;
        // A module's type ids and string offsets go on where the kernel's end.
        let path = Path::new("/sys/kernel/btf").join(module);
        if let Ok(bytes) = fs::read(&path) {
            let path = path.display().to_string();
            btf.append(&bytes)
                .map_err(|what| Error::BadBtf { path, what })?;
        }
        Ok(btf)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        const CUT: &str = "it is cut short";
        let word = |at: usize| {
            bytes
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_ne_bytes)
                .map(|w| w as usize)
        };
        if bytes.get(..2) != Some(&0xeb9f_u16.to_ne_bytes()) {
            return Err("its magic number is wrong");
        }
        let header = word(4).ok_or(CUT)?;
        let section = |offset, len| bytes.get(header + offset..)?.get(..len);
        let (at, len) = (word(8).ok_or(CUT)?, word(12).ok_or(CUT)?);
        let types = section(at, len).ok_or(CUT)?;
        let (at, len) = (word(16).ok_or(CUT)?, word(20).ok_or(CUT)?);
        self.strings.extend_from_slice(section(at, len).ok_or(CUT)?);
        let mut at = self.types.len();
        self.types.extend_from_slice(types);
        while at < self.types.len() {
            let id = u32::try_from(self.starts.len()).map_err(|_| "it has too many types")?;
            self.starts
                .push(u32::try_from(at).map_err(|_| "it is too long")?);
            let (kind, len) = (self.kind(id), self.vlen(id));
            at += 12
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * len,
                    kind::ENUM | kind::FUNC_PROTO => 8 * len,
                    0 => return Err("it has a type of no kind"),
                    _ => 0,
                };
        }
        if at == self.types.len() {
            Ok(())
        } else {
            Err(CUT)
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self
            .types
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    fn start(&self, id: u32) -> usize {
        self.starts
            .get(id as usize)
            .map_or(usize::MAX / 2, |&start| start as usize)
    }

    fn kind(&self, id: u32) -> u32 {
        (self.word(self.start(id) + 4) >> 24) & 0x1f
    }

    fn vlen(&self, id: u32) -> usize {
        (self.word(self.start(id) + 4) & 0xffff) as usize
    }

    fn size_or_type(&self, id: u32) -> u32 {
        self.word(self.start(id) + 8)
    }

    fn string(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The first type of this kind and name. Looks at all of them: few are asked for, and an index
    /// of all names would take more memory than the types themselves.
    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        (1..u32::try_from(self.starts.len()).ok()?)
            .find(|&id| self.kind(id) == kind && self.is_called(id, name.as_bytes()))
    }

    /// Whether a type has this name: without looking for the name's end first, which would take
    /// most of the start in a slow machine.
    fn is_called(&self, id: u32, name: &[u8]) -> bool {
        let rest = self.strings.get(self.word(self.start(id)) as usize..);
        rest.is_some_and(|rest| rest.starts_with(name) && rest.get(name.len()) == Some(&0))
    }

    /// The type behind names and qualifiers. Bounded, as hostile BTF could go in circles.
    fn stripped(&self, mut id: u32) -> u32 {
        for _ in 0..32 {
            match self.kind(id) {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.size_or_type(id);
                }
                _ => break,
            }
        }
        id
    }

    /// Size of `struct strukt` in bytes; `None` when there is none.
    pub fn size(&self, strukt: &str) -> Option<usize> {
        self.find(kind::STRUCT, strukt)
            .map(|id| self.size_or_type(id) as usize)
    }

    /// Offset in bytes of `path` (members joined by dots) in `struct strukt`; members of
    /// anonymous structs and unions are found. `None` when there is no such member, or it is
    /// a bit field that does not begin on a byte.
    pub fn offset(&self, strukt: &str, path: &str) -> Option<usize> {
        let mut id = self.find(kind::STRUCT, strukt)?;
        let mut bits = 0;
        for member in path.split('.') {
            let (offset, inner) = self.member(id, member.as_bytes(), 0)?;
            bits += offset;
            id = self.stripped(inner);
        }
        (bits % 8 == 0).then_some((bits / 8) as usize)
    }

    /// Bit offset and type of a member, looking into anonymous members.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u64, u32)> {
        if depth > 16 || !matches!(self.kind(id), kind::STRUCT | kind::UNION) {
            return None;
        }
        // With kind_flag set the offset's upper eight bits are a bit field's size.
        let mask = if self.word(self.start(id) + 4) >> 31 == 1 {
            0x00ff_ffff
        } else {
            u32::MAX
        };
        (0..self.vlen(id)).find_map(|index| {
            let at = self.start(id) + 12 + 12 * index;
            let (found, inner) = (self.string(self.word(at)), self.word(at + 4));
            let offset = u64::from(self.word(at + 8) & mask);
            if found == name {
                Some((offset, inner))
            } else if found.is_empty() {
                let (deeper, inner) = self.member(self.stripped(inner), name, depth + 1)?;
                Some((offset + deeper, inner))
            } else {
                None
            }
        })
    }

    /// Names of `enum name` by value; empty when there is none.
    pub fn enumerators(&self, name: &str) -> HashMap<u32, String> {
        let Some(id) = self.find(kind::ENUM, name) else {
            return HashMap::new();
        };
        (0..self.vlen(id))
            .map(|index| {
                let at = self.start(id) + 12 + 8 * index;
                let text = String::from_utf8_lossy(self.string(self.word(at))).into_owned();
                (self.word(at + 4), text)
            })
            .collect()
    }

    /// Whether the kernel, or the module, has a function `name`.
    pub fn has_function(&self, name: &str) -> bool {
        self.find(kind::FUNC, name).is_some()
    }

    /// How many arguments tracepoint `name` passes; `None` when the kernel has none of that
    /// name. Every tracepoint leaves a typedef `btf_trace_NAME` of its prototype.
    pub fn tracepoint(&self, name: &str) -> Option<usize> {
        let typedef = self.find(kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.stripped(typedef);
        let prototype = (self.kind(pointer) == kind::PTR).then(|| self.size_or_type(pointer))?;
        // The first parameter is the tracepoint's own `void *__data`.
        (self.kind(prototype) == kind::FUNC_PROTO).then(|| self.vlen(prototype).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob with `struct outer { u32 first; struct { u32 inner; }; }` and an enum.
    fn blob() -> Vec<u8> {
        let strings = b"\0outer\0first\0inner\0reason\0A\0B\0";
        let at = |name: &str| {
            let whole = String::from_utf8_lossy(strings).into_owned();
            u32::try_from(whole.find(&format!("\0{name}\0")).unwrap() + 1).unwrap()
        };
        let words = [
            // 1: int, four bytes
            &[0, 1 << 24, 4, 32][..],
            // 2: anonymous struct { inner }
            &[0, (4 << 24) | 1, 4, at("inner"), 1, 0],
            // 3: struct outer { first; anonymous }
            &[at("outer"), (4 << 24) | 2, 8, at("first"), 1, 0, 0, 2, 32],
            // 4: enum reason { A = 2, B = 5 }
            &[at("reason"), (6 << 24) | 2, 4, at("A"), 2, at("B"), 5],
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        let types_len = u32::try_from(types.len()).unwrap();
        let strings_len = u32::try_from(strings.len()).unwrap();
        for word in [24, 0, types_len, types_len, strings_len] {
            blob.extend(word.to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(strings);
        blob
    }

    fn parsed(bytes: &[u8]) -> Result<Btf, &'static str> {
        let mut btf = Btf {
            starts: vec![0],
            ..Btf::default()
        };
        btf.append(bytes).map(|()| btf)
    }

    #[test]
    fn members_of_anonymous_structs_are_found() {
        let btf = parsed(&blob()).unwrap();
        assert_eq!(btf.offset("outer", "first"), Some(0));
        assert_eq!(btf.offset("outer", "inner"), Some(4));
        assert_eq!(btf.offset("outer", "absent"), None);
        assert_eq!(btf.size("outer"), Some(8));
    }

    #[test]
    fn enumerators_are_named_by_value() {
        let names = parsed(&blob()).unwrap().enumerators("reason");
        assert_eq!(names.get(&5).map(String::as_str), Some("B"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn every_truncation_is_an_error_or_harmless() {
        let whole = blob();
        for len in 0..whole.len() {
            if let Ok(btf) = parsed(&whole[..len]) {
                let _ = (btf.offset("outer", "inner"), btf.enumerators("reason"));
            }
        }
    }
}
