//! Kernel address → symbol and offset, from /proc/kallsyms. The file is read only when an address
//! is met for the first time, and nothing of it is kept but the answer.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
    sync::Arc,
};

/// Farthest from its symbol's start that code is taken to belong to it: functions are shorter.
const LONGEST: u64 = 1 << 20;

/// Most addresses that are remembered; code places that free packets are some hundreds.
const MOST: usize = 65_536;

/// Symbols by address; `None` for one that no symbol is near.
#[derive(Debug, Default)]
pub(super) struct Symbols(HashMap<u64, Option<Arc<str>>>);

impl Symbols {
    /// The symbol that holds the code at `address`, with the offset in it, such as
    /// `nf_hook_slow+0x9c`; `None` where symbols are hidden or it has none.
    pub(super) fn name(&mut self, address: u64) -> Option<Arc<str>> {
        if let Some(known) = self.0.get(&address) {
            return known.clone();
        }
        let name = File::open("/proc/kallsyms")
            .ok()
            .and_then(|file| find(BufReader::new(file), address));
        let name: Option<Arc<str>> = name.map(Arc::from);
        if self.0.len() < MOST {
            self.0.insert(address, name.clone());
        }
        name
    }
}

/// Whether this process is shown no addresses of symbols: all are zero then
/// (`kptr_restrict` in Documentation/admin-guide/sysctl/kernel.rst).
pub(super) fn are_hidden() -> bool {
    let Ok(file) = File::open("/proc/kallsyms") else {
        return true;
    };
    let mut lines = BufReader::new(file).lines().map_while(Result::ok).take(16);
    lines.all(|line| line.starts_with("0000000000000000 "))
}

/// Looks for the last text symbol at or before `address` in lines `ADDRESS TYPE NAME [MODULE]`.
fn find(mut symbols: impl BufRead, address: u64) -> Option<String> {
    let mut best: Option<(u64, String)> = None;
    let mut line = String::new();
    while symbols.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some((start, name)) = text_symbol(&line)
            && start <= address
            && best.as_ref().is_none_or(|(nearest, _)| start > *nearest)
        {
            best = Some((start, name.to_owned()));
        }
        line.clear();
    }
    let (start, name) = best?;
    let offset = address - start;
    (start > 0 && offset < LONGEST).then(|| {
        // The module stands behind the name, after a tab.
        match name.split_once('\t') {
            Some((name, module)) => format!("{name}+{offset:#x} {module}"),
            None => format!("{name}+{offset:#x}"),
        }
    })
}

fn text_symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.trim_end().splitn(3, ' ');
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next()?;
    matches!(kind, "t" | "T" | "w" | "W").then_some((start, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
ffffffff81000000 T _text
ffffffff81f285d0 T nf_hook_slow
ffffffff81f28700 D not_code
ffffffff81f28800 t nf_hook_entries_free
ffffffffc0a01000 t nft_do_chain\t[nf_tables]
";

    fn check(address: u64, expected: Option<&str>) {
        assert_eq!(find(SYMBOLS.as_bytes(), address).as_deref(), expected);
    }

    #[test]
    fn code_is_named_by_the_function_that_holds_it() {
        check(0xffff_ffff_81f2_866c, Some("nf_hook_slow+0x9c"));
        check(0xffff_ffff_81f2_8710, Some("nf_hook_slow+0x140"));
        check(
            0xffff_ffff_c0a0_1123,
            Some("nft_do_chain+0x123 [nf_tables]"),
        );
        check(0xffff_ffff_ffff_ffff, None);
        check(0x1000, None);
    }

    #[test]
    fn hidden_symbols_name_nothing() {
        let hidden = "0000000000000000 T _text\n0000000000000000 T nf_hook_slow\n";
        assert_eq!(find(hidden.as_bytes(), 0xffff_ffff_81f2_866c), None);
    }
}
