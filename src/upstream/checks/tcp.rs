//! The TCP check: what is said on a connection, and what has to come back.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::probe::{ANSWER_LIMIT, CheckFailure};
use super::request::contains;

/// Sends `send`, then reads until `expect` has come. With neither, the open connection was enough.
pub(super) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    send: Option<&str>,
    expect: Option<&str>,
) -> Result<(), CheckFailure> {
    if let Some(send) = send {
        stream.write_all(send.as_bytes()).await.map_err(CheckFailure::Broken)?;
    }
    let Some(expect) = expect else { return Ok(()) };
    let (mut seen, mut piece) = (Vec::new(), [0u8; 4_096]);
    while seen.len() < ANSWER_LIMIT {
        let read = stream.read(&mut piece).await.map_err(CheckFailure::Broken)?;
        if read == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..read]);
        if contains(&seen, expect.as_bytes()) {
            return Ok(());
        }
    }
    Err(CheckFailure::Text)
}
