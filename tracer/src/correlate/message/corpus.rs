//! Messages for tests: the files of tests/data/dns, random valid messages, and deterministic damage.
//!
//! `UPDATE_EXPECT=1 cargo test -p tracer --lib corpus` writes the files again from the recipes; without the variable
//! the same test claims that they still agree. Files named `tcp-` are byte streams with length prefixes, the others messages.

use std::{env, fs, path::PathBuf};

use domain::{
    base::{MessageBuilder, Name, Question, StaticCompressor, Ttl, iana::Rtype},
    rdata::A,
};

#[path = "../../../../tests/support/damage.rs"]
mod damage;
mod recipes;

pub(in crate::correlate) use self::{damage::Xorshift, recipes::wire};

impl Xorshift {
    fn name(&mut self) -> Name<Vec<u8>> {
        let mut wire = Vec::new();
        for _ in 0..self.below(7) {
            let most = if self.below(8) == 0 { 63 } else { 12 };
            let len = 1 + self.below(most);
            if wire.len() + len > 230 {
                break;
            }
            wire.push(u8::try_from(len).unwrap());
            let odd = self.below(10) == 0;
            wire.extend((0..len).map(|_| {
                if odd {
                    self.byte()
                } else {
                    b"abcXYZ-_019Q"[self.below(12)]
                }
            }));
        }
        wire.push(0);
        Name::from_octets(wire).unwrap()
    }

    /// A valid query or response with up to two questions.
    pub(in crate::correlate) fn message(&mut self) -> Vec<u8> {
        let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new())).unwrap();
        builder
            .header_mut()
            .set_id(u16::from_be_bytes([self.byte(), self.byte()]));
        builder.header_mut().set_qr(self.below(2) == 1);
        builder.header_mut().set_tc(self.below(9) == 1);
        builder
            .header_mut()
            .set_opcode([0, 4, 5, 6][self.below(4)].into());
        let mut question = builder.question();
        let name = self.name();
        for _ in 0..[0, 1, 1, 1, 1, 2][self.below(6)] {
            let qtype = [1, 28, 33, 65, 255, 65280][self.below(6)];
            question
                .push(Question::new_in(&name, Rtype::from_int(qtype)))
                .unwrap();
        }
        let mut answer = question.answer();
        for _ in 0..self.below(4) {
            answer
                .push((
                    &name,
                    Ttl::from_secs(30),
                    A::from_octets(192, 0, 2, self.byte()),
                ))
                .unwrap();
        }
        let mut additional = answer.additional();
        if self.below(2) == 1 {
            additional
                .opt(|opt| {
                    opt.set_udp_payload_size(1232);
                    Ok(())
                })
                .unwrap();
        }
        additional.finish().into_target()
    }
}

/// Every file of tests/data/dns as (name, bytes), in the order of names.
pub(in crate::correlate) fn files() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// The bytes of one file.
pub(in crate::correlate) fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/dns")
}

#[test]
fn corpus_files_are_what_the_recipes_make() {
    let recipes = [recipes::valid(), recipes::hostile(), recipes::streams()].concat();
    let mut recipes: Vec<_> = recipes
        .into_iter()
        .map(|(name, bytes)| (format!("{name}.bin"), bytes))
        .collect();
    recipes.sort();
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (name, bytes) in &recipes {
            fs::write(folder().join(name), bytes).unwrap();
        }
    }
    let (files, names) = (files(), |(name, _): &(String, _)| name.clone());
    assert_eq!(
        files.iter().map(names).collect::<Vec<_>>(),
        recipes.iter().map(names).collect::<Vec<_>>()
    );
    files
        .iter()
        .zip(&recipes)
        .for_each(|(file, recipe)| assert!(file == recipe, "{} differs", file.0));
}
