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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_that_comes_in_pieces_is_found_and_one_that_never_comes_is_not() {
        for (pieces, passes) in [(&["+PO", "NG\r\n"][..], true), (&["+PO", "-NG\r\n"], false), (&[], false)] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let instance = async move {
                let mut asked = [0u8; 6];
                theirs.read_exact(&mut asked).await.unwrap();
                assert_eq!(&asked, b"PING\r\n");
                for piece in pieces {
                    theirs.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (judged, ()) = tokio::join!(ask(ours, Some("PING\r\n"), Some("+PONG")), instance);
            assert_eq!(judged.is_ok(), passes, "{pieces:?}: {judged:?}");
        }
        assert!(contains(b"abc", b"") && contains(b"abc", b"bc") && !contains(b"bc", b"abc"));
    }
}
