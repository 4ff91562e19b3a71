//! Expressions: any text is an expression or a list of errors that can be shown.

use pointsman::engine::diagnostic::{Diagnostics, Source};
use pointsman::engine::expr::{Written, parse_field, parse_instance, parse_request};

/// Reads a text as a selector, as a condition and as a field.
pub fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source::new("x", text);
    let written = Written::whole(&source);
    let check = |found: bool, out: &Diagnostics| {
        assert_eq!(found, !out.has_errors(), "either an expression or errors: {text:?}");
        let _ = out.render();
    };
    let mut out = Diagnostics::default();
    check(parse_instance(&written, None, &mut out).is_some(), &out);
    let mut out = Diagnostics::default();
    check(parse_request(&written, None, &mut out).is_some(), &out);
    let mut out = Diagnostics::default();
    check(parse_field(&written, None, &mut out).is_some(), &out);
}
