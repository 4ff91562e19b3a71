//! What catalogs say.

use pointsman::catalog::consul::entry::{Origin, read};
use pointsman::catalog::consul::settings::Settings;
use pointsman::engine::diagnostic::Source;
use pointsman::engine::format::catalog_file as format;

/// Reads a body as Consul's answer to `/v1/health/service/:name`.
pub fn consul_answer(body: &[u8]) {
    let Ok(entries) = read(body, &Settings::default(), Origin::default()) else { return };
    for draft in &entries.drafts {
        assert!(draft.port > 0, "a port");
        assert!(!draft.host.is_empty(), "a host");
        assert!(!draft.instance.identity.is_empty(), "an identity");
    }
    assert!(entries.flawed || entries.problems.len() >= entries.kept.len(), "what is kept is said why");
}

/// Reads a text as a catalog file; what is read can be written and read again.
pub fn catalog_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (file, found) = format::parse(&Source::new("catalog.yaml", text));
    let _ = found.render();
    if found.has_errors() {
        return;
    }
    let written = format::write(&file);
    let (again, found) = format::parse(&Source::new("again.yaml", written.as_str()));
    assert!(!found.has_errors(), "{}\n{written}", found.render());
    assert_eq!(format::write(&again), written, "reading what was written");
}
