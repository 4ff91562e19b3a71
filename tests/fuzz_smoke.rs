//! Every fuzz target over its corpus and 10,000 mutations of it, the same ones on every run.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the fuzzer uses the rest")]
mod targets;

use std::fs;
use std::path::Path;

use pointsman::engine::time::Draw;

/// How many, unless `FUZZ_MUTATIONS` says so; `FUZZ_SEED` makes it other ones.
const MUTATIONS: u64 = 10_000;

/// What breaks parsers, to be put anywhere.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"%",
    b"%2f",
    b"%00",
    b"%2e%2e",
    b"..;",
    b";",
    b"%3b",
    b"\\",
    b"//",
    b"../",
    b"host: b\r\n",
    b"content-length: 0\r\n",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: \x0bchunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"trailer: x-path, x-forwarded-for, x-sum\r\n",
    b"0\r\nx-path: /admin\r\nx-forwarded-for: 6.6.6.6\r\nx-sum: 1\r\n\r\n",
    b"connection: content-length\r\n",
    b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\n",
    b"GET /admin HTTP/1.1\r\n",
    b"HTTP/1.0",
    b"\"",
    b"'",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"- ",
    b"not ",
    b" and ",
    b"18446744073709551616",
    b"-1",
    b"null",
    b"true",
    b"\xff",
    b"\xc3\xa9",
    b"&a",
    b"*a",
    b"!!str",
    b"|\n",
    b"# ",
    b"\n\nx-consul-index: 7\n",
    b"\n\nx-consul-index: 1\nbody: b\n",
    b"\nasked: quick\n",
    b"\nlost\n",
];

#[test]
fn pure_targets_take_their_corpus_and_mutations_of_it() {
    for (name, target) in targets::PURE {
        let corpus = corpus(name);
        corpus.iter().for_each(|input| target(input));
        let mut luck = Draw(asked("FUZZ_SEED", 0x5eed));
        for _ in 0..asked("FUZZ_MUTATIONS", MUTATIONS) {
            target(&mutated(&corpus, &mut luck));
        }
    }
}

#[test]
fn what_an_instance_reads_is_what_the_proxy_decided_on() {
    let corpus = corpus("request");
    let mut luck = Draw(asked("FUZZ_SEED", 0x5eed));
    let mutations: Vec<Vec<u8>> =
        (0..asked("FUZZ_MUTATIONS", MUTATIONS)).map(|_| mutated(&corpus, &mut luck)).collect();
    targets::request::all(corpus);
    targets::request::all(mutations);
}

/// A number of the environment.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has seeds");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One to six changes of a seed.
fn mutated(corpus: &[Vec<u8>], luck: &mut Draw) -> Vec<u8> {
    let mut below = |most: usize| luck.below(most as u64) as usize;
    let mut out = corpus[below(corpus.len())].clone();
    for _ in 0..=below(6) {
        let at = below(out.len() + 1);
        let to = (at + 1 + below(16)).min(out.len());
        match below(6) {
            0 if at < out.len() => out[at] ^= 1 << below(8),
            1 => drop(out.drain(at..to)),
            2 => {
                let copy = out[at..to].to_vec();
                out.splice(at..at, copy);
            }
            3 => {
                let other = &corpus[below(corpus.len())];
                let from = below(other.len() + 1);
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece = PIECES[below(PIECES.len())];
                out.splice(at..at, piece.iter().copied());
            }
        }
    }
    out.truncate(4_096);
    out
}
