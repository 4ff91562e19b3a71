//! The check by a command: a program of this machine, without a shell, without our environment, and ended with all
//! that it started.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::probe::CheckFailure;
use crate::engine::instance::Instance;

/// How much of a command's output is kept; the rest is read and dropped.
const OUTPUT_KEPT: usize = 1_024;
/// What is still read of it once the command has ended and its process group with it.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The only search path it gets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command for an instance; exit status 0 passes. When the future ends or is dropped (the deadline), its whole
/// process group is killed.
pub(super) async fn ask(argv: &[String], instance: &Instance) -> Result<(), CheckFailure> {
    let mut command = std::process::Command::new(argv.first().map_or("", String::as_str));
    command
        .args(argv.iter().skip(1).map(|argument| filled(argument, instance)))
        .env_clear()
        .env("PATH", PATH)
        .env("POINTSMAN_SERVICE", &*instance.service)
        .env("POINTSMAN_INSTANCE", &*instance.id)
        .env("POINTSMAN_ADDRESS", instance.addr.ip().to_string())
        .env("POINTSMAN_PORT", instance.addr.port().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(CheckFailure::Spawn)?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut output = pin!(output(child.stdout.take(), child.stderr.take()));
    let mut said = None;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended.map_err(CheckFailure::Spawn)?,
            // The end of the output is not the end of the command.
            text = &mut output, if said.is_none() => said = Some(text),
        }
    };
    drop(group);
    let said = match said {
        Some(said) => said,
        None => tokio::time::timeout(LAST_WORDS, output).await.unwrap_or_default(),
    };
    judge(ended, &said)
}

/// A process group that is killed when this is dropped: the command, or what it left behind. Its number stays taken
/// for as long as anybody is in it; after that it is given out again only when all others have been.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// `{address}` and `{port}` filled in. Nothing else of the catalog gets into an argument: ids and labels are anybody's
/// text, and one that begins with a dash would be an option.
fn filled(argument: &str, instance: &Instance) -> String {
    let addr = instance.addr;
    argument.replace("{address}", &addr.ip().to_string()).replace("{port}", &addr.port().to_string())
}

/// Reads both to their ends; gives the beginning.
async fn output(out: Option<impl AsyncRead + Unpin>, err: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut out, err) = tokio::join!(beginning(out), beginning(err));
    out.extend(err);
    out.truncate(OUTPUT_KEPT);
    out
}

async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0u8; 1_024]);
    let Some(mut pipe) = pipe else { return kept };
    // A pipe that cannot be read has ended.
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read.min(OUTPUT_KEPT - kept.len())]);
    }
    kept
}

fn judge(ended: ExitStatus, said: &[u8]) -> Result<(), CheckFailure> {
    let code = match (ended.code(), ended.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => code,
        (None, signal) => 256 + signal.unwrap_or(0),
    };
    let said = String::from_utf8_lossy(said).trim().to_owned();
    Err(CheckFailure::Exit(u16::try_from(code).unwrap_or(u16::MAX), said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::instance;

    async fn shell(script: &str) -> Result<(), CheckFailure> {
        let argv: Vec<String> =
            ["/bin/sh", "-c", script, "sh", "{address}", "{port}", "{id}"].map(str::to_owned).into();
        ask(&argv, &instance("web", "web-1", 4711, &[])).await
    }

    #[tokio::test]
    async fn the_exit_status_is_the_verdict_and_the_output_is_bounded() {
        shell("true").await.unwrap();
        let failed = shell("echo some words; echo more >&2; exit 7").await;
        assert!(matches!(&failed, Err(CheckFailure::Exit(7, said)) if said.contains("some words")), "{failed:?}");
        let signalled = shell("kill -9 $$").await;
        assert!(matches!(signalled, Err(CheckFailure::Exit(265, _))), "{signalled:?}");
        let loud = shell("yes | head -c 1000000; exit 1").await;
        assert!(matches!(&loud, Err(CheckFailure::Exit(1, said)) if said.len() <= OUTPUT_KEPT), "{loud:?}");
        let missing = ask(&["/no/such/program".to_owned()], &instance("web", "web-1", 1, &[])).await;
        assert!(matches!(missing, Err(CheckFailure::Spawn(_))), "{missing:?}");
    }

    #[tokio::test]
    async fn it_gets_the_instance_and_nothing_of_our_environment() {
        let script = r#"[ "$1 $2 $3" = "127.0.0.1 4711 {id}" ] && [ "$POINTSMAN_SERVICE/$POINTSMAN_INSTANCE" = web/web-1 ] \
            && [ "$POINTSMAN_ADDRESS:$POINTSMAN_PORT" = 127.0.0.1:4711 ] && [ -z "$HOME" ] && [ "$(pwd)" = / ]"#;
        shell(script).await.unwrap();
    }

    #[tokio::test]
    async fn at_the_deadline_everything_it_started_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        // A child that would outlive its parent, and says that it runs.
        let script = format!("sleep 600 & echo $! > {0}.next && mv {0}.next {0} && wait", path.display());
        let running = tokio::spawn(async move { shell(&script).await });
        let pid = loop {
            match std::fs::read_to_string(&path) {
                Ok(pid) => break pid.trim().to_owned(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        running.abort();
        let _ = running.await;
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let gone = async {
            // Dead, or a zombie that nobody has reaped.
            while state().is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the grandchild was killed");
    }
}
