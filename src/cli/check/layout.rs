//! `check --fmt`: which files are not in the one layout, and writing them anew.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::dry_run::fmt::{FmtError, format};
use crate::dry_run::load;

use super::{CLEAN, UNREADABLE, WRONG};

/// Names each file that is (or, with `write`, was) laid out otherwise. Status 1: there are some and they were not
/// written, or a file is wrong.
pub(super) fn run(paths: &[PathBuf], write: bool, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let (sources, unreadable) = load::sources(paths);
    let mut status = CLEAN;
    for source in &sources {
        match format(source) {
            Ok(text) if source.name == "-" => out.write_all(text.as_bytes())?,
            Ok(text) if text == source.text => {}
            Ok(text) => {
                writeln!(out, "{}", source.name)?;
                if write {
                    replace(Path::new(&source.name), &text)?;
                } else {
                    status = WRONG;
                }
            }
            Err(FmtError::Unsure(name)) => {
                writeln!(err, "{}", FmtError::Unsure(name))?;
                status = WRONG;
            }
            Err(FmtError::Wrong(found)) => {
                writeln!(err, "{}", found.render())?;
                status = WRONG;
            }
        }
    }
    for path in &unreadable {
        writeln!(err, "{path}")?;
    }
    Ok(if unreadable.is_empty() { status } else { UNREADABLE })
}

/// A proxy that follows the folder never sees half a file: it is written beside and moved over. A link stays a link.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.fmt", std::process::id()));
    fs::write(&beside, text)?;
    fs::set_permissions(&beside, fs::metadata(&path)?.permissions())?;
    fs::rename(&beside, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_then_written_then_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yaml");
        fs::write(&path, "service:   web # x\n").unwrap();
        let run = |write: bool| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let status = run(std::slice::from_ref(&path), write, &mut out, &mut err).unwrap();
            (status, String::from_utf8(out).unwrap().contains("web.yaml"))
        };
        assert_eq!(run(false), (1, true));
        assert_eq!(run(true), (0, true));
        assert_eq!(run(false), (0, false));
        assert_eq!(fs::read_to_string(&path).unwrap(), "service: web  # x\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
