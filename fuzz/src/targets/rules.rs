//! Rule files: any text is a set of rules that can be compiled, or a list of errors that can be shown.

use pointsman::engine::diagnostic::Source;
use pointsman::engine::route::Router;
use pointsman::engine::rules;

/// Reads a text as a rule file, and compiles it.
pub fn rule_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (set, found) = rules::parse_files(&[Source::new("x.yaml", text)]);
    let _ = found.render();
    if found.has_errors() {
        return;
    }
    if let Err(found) = Router::compile(&set) {
        assert!(found.has_errors(), "a refusal says why");
        let _ = found.render();
    }
}
