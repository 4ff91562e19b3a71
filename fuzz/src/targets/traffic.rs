//! Captured traffic: the first byte says by what it was written.

use pointsman::dry_run::traffic::{Format, detect, har};

/// Reads a text as captured traffic of one kind.
pub fn traffic(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let _ = detect::detect(rest);
    let (_, format) = Format::ALL[usize::from(*kind) % Format::ALL.len()];
    let check = |line: &str| {
        if let Ok(captured) = format.read(line, "shop") {
            assert!(captured.request.path.starts_with('/'), "{:?}", captured.request.path);
            // What is passed on by its greeting may ask for nobody.
            assert!(!captured.request.host.is_empty() || captured.request.method == http::Method::CONNECT);
        }
    };
    if format == Format::Har {
        // What an archive gives is a traffic line, good or not.
        let _ = har::entries(rest, &mut |line| {
            check(&line);
            Ok(())
        });
    } else if let Ok(text) = std::str::from_utf8(rest) {
        text.lines().for_each(check);
    }
}
