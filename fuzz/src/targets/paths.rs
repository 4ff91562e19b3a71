//! Path normalisation, beside a server that decodes everything and walks the segments one by one.

use pointsman::engine::paths::{Paths, Spellings};

/// Which bit of an input's first byte stands for which of [`Spellings::WORDS`].
const BITS: [u8; Spellings::WORDS.len()] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80];
/// Whether slashes are merged.
const MERGE: u8 = 0x40;

/// Reads a target's path under settings that the first byte chooses.
pub fn path(bytes: &[u8]) {
    let Some((settings, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut refuse = Spellings::NONE;
    for ((_, spelling), bit) in Spellings::WORDS.iter().zip(BITS) {
        if settings & bit != 0 {
            refuse = refuse.and(*spelling);
        }
    }
    let paths = Paths { refuse, merge_slashes: settings & MERGE != 0, forward_normalised: false };
    let Ok(normal) = paths.normalise(text) else { return };
    assert_eq!(paths.normalise(&normal).as_deref(), Ok(&*normal), "normal for good: {text:?}");
    assert!(normal.starts_with('/') && normal.is_ascii(), "{normal:?}");
    assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{normal:?}");
    assert!(!paths.merge_slashes || !normal.contains("//"), "{normal:?}");
    if paths.merge_slashes {
        assert_eq!(walked(text.as_bytes()), walked(normal.as_bytes()), "{text:?} was matched as {normal:?}");
    }
    let segments = text.as_bytes().split(|byte| *byte == b'/');
    if refuse.has(Spellings::DOT_PARAMETER) {
        for segment in segments.clone() {
            assert_eq!(dots(&cut_decoded(segment)), dots(&decoded(segment)), "a cut leads elsewhere: {text:?}");
        }
    }
    if refuse.has(Spellings::PARAMETER) {
        for segment in segments {
            assert_eq!(cut_decoded(segment), decoded(segment), "cut after decoding: {text:?}");
            assert_eq!(decoded(cut(segment)), decoded(segment), "cut before decoding: {text:?}");
        }
    }
}

/// A segment as Tomcat takes it: without its parameter, then decoded.
fn cut(segment: &[u8]) -> &[u8] {
    segment.split(|byte| *byte == b';').next().unwrap_or_default()
}

/// A segment of servers that decode, then cut. What is cut before it is decoded, is cut here too.
fn cut_decoded(segment: &[u8]) -> Vec<u16> {
    decoded(segment).into_iter().take_while(|value| *value != u16::from(b';')).collect()
}

/// 1 and 2: it stays, it goes up.
fn dots(decoded: &[u16]) -> usize {
    if decoded.len() <= 2 && decoded.iter().all(|value| *value == u16::from(b'.')) { decoded.len() } else { 0 }
}

/// The segments as a server walks them: each decoded once, dots followed, empty ones passed over. An escaped slash is a
/// character (0x12f) and no separator.
pub fn walked(path: &[u8]) -> Vec<Vec<u16>> {
    let mut segments: Vec<Vec<u16>> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        let decoded = decoded(segment);
        match decoded.as_slice() {
            [] | [0x2e] => {}
            [0x2e, 0x2e] => drop(segments.pop()),
            _ => segments.push(decoded),
        }
    }
    segments
}

fn decoded(segment: &[u8]) -> Vec<u16> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = segment.get(at) {
        let escaped =
            segment.get(at + 1..at + 3).filter(|digits| *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let value = escaped.and_then(|digits| u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(value.map_or(u16::from(*byte), |value| if value == 0x2f { 0x12f } else { value }));
        at += if value.is_some() { 3 } else { 1 };
    }
    out
}
