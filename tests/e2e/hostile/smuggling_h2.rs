//! Request smuggling from HTTP/2 to an instance of HTTP/1.1: lengths and codings that lie, and bytes that HPACK carries
//! but HTTP/1.1 reads as something else.

use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, asked, head};
use super::recorder::Recorder;
use crate::harness::Setup;

type Fields = &'static [(&'static [u8], &'static [u8])];

const BODY: &[u8] = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

const METHOD: (&[u8], &[u8]) = (b":method", b"GET");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"http");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"a");
const PATH: (&[u8], &[u8]) = (b":path", b"/up");

/// Heads that end their stream.
const HEADS: &[(&str, Fields)] = &[
    ("CRLF in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"y\r\ntransfer-encoding: chunked")]),
    ("LF in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"y\nhost: b")]),
    ("NUL in a value", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x", b"y\0")]),
    ("CRLF in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"x: y\r\nz", b"1")]),
    ("a colon in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"transfer-encoding: chunked\r\nx", b"1")]),
    ("a space in a name", &[METHOD, SCHEME, AUTHORITY, PATH, (b"transfer-encoding ", b"chunked")]),
    ("a name in upper case", &[METHOD, SCHEME, AUTHORITY, PATH, (b"X-Up", b"1")]),
    ("CRLF in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/up HTTP/1.1\r\nhost: b\r\n\r\nGET /smuggled")]),
    ("a space in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/up HTTP/1.1 /smuggled")]),
    ("no slash in front of the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"smuggled")]),
    ("a path that is another host", &[METHOD, SCHEME, AUTHORITY, (b":path", b"@b/smuggled")]),
    ("an empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")]),
    ("CRLF in the method", &[(b":method", b"GET /smuggled HTTP/1.1\r\nx:"), SCHEME, AUTHORITY, PATH]),
    ("a space in the method", &[(b":method", b"GET /smuggled"), SCHEME, AUTHORITY, PATH]),
    ("CRLF in the authority", &[METHOD, SCHEME, (b":authority", b"a\r\nx: y"), PATH]),
    ("a path in the authority", &[METHOD, SCHEME, (b":authority", b"a/smuggled"), PATH]),
    ("a user in the authority", &[METHOD, SCHEME, (b":authority", b"u@a"), PATH]),
    ("a scheme with a host", &[METHOD, (b":scheme", b"http://b/smuggled?"), AUTHORITY, PATH]),
    ("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, (b":path", b"/smuggled")]),
    ("two methods", &[METHOD, METHOD, SCHEME, AUTHORITY, PATH]),
    ("a pseudo-field behind a field", &[METHOD, SCHEME, AUTHORITY, (b"x", b"y"), PATH]),
    ("a pseudo-field nobody knows", &[METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")]),
    ("no path", &[METHOD, SCHEME, AUTHORITY]),
    ("no method", &[SCHEME, AUTHORITY, PATH]),
    ("H2.TE", &[METHOD, SCHEME, AUTHORITY, PATH, (b"transfer-encoding", b"chunked")]),
    ("a connection field", &[METHOD, SCHEME, AUTHORITY, PATH, (b"connection", b"content-length")]),
    ("an upgrade", &[METHOD, SCHEME, AUTHORITY, PATH, (b"upgrade", b"h2c")]),
    ("a proxy connection", &[METHOD, SCHEME, AUTHORITY, PATH, (b"proxy-connection", b"keep-alive")]),
    ("TE of another kind", &[METHOD, SCHEME, AUTHORITY, PATH, (b"te", b"gzip")]),
    ("a Host beside", &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"b")]),
    ("two Hosts", &[METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"b")]),
    ("a length without a body", &[METHOD, SCHEME, AUTHORITY, PATH, (b"content-length", b"30")]),
    ("an encoded slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/x%2f..%2fsmuggled")]),
];

/// Heads with a body behind.
const UPLOADS: &[(&str, Fields)] = &[
    ("H2.CL: shorter", &[(b"content-length", b"0")]),
    ("H2.CL: a little shorter", &[(b"content-length", b"5")]),
    ("H2.CL: longer", &[(b"content-length", b"5000")]),
    ("H2.CL: two", &[(b"content-length", b"5"), (b"content-length", b"42")]),
    ("H2.CL: no number", &[(b"content-length", b"+42")]),
    ("H2.CL: a list", &[(b"content-length", b"42, 42")]),
    ("H2.TE", &[(b"transfer-encoding", b"chunked")]),
    ("H2.TE with a length", &[(b"transfer-encoding", b"chunked"), (b"content-length", b"5")]),
    ("an honest one", &[]),
];

#[tokio::test]
async fn no_request_is_smuggled_from_http2() {
    for (what, fields) in HEADS {
        check(what, &head(fields), None).await;
    }
    for (what, more) in UPLOADS {
        check(what, &asked("POST", "/up", more), Some(BODY)).await;
    }
}

async fn check(what: &str, head: &[u8], body: Option<&[u8]>) {
    let instance = Recorder::start().await;
    let proxy = Setup::to(&[instance.address]).settings(|settings| settings.patience.idle = 200).start().await;
    let mut client = Raw::connect(proxy.address).await;
    client.send(HEADERS, END_HEADERS | if body.is_none() { END_STREAM } else { 0 }, 1, head).await;
    if let Some(body) = body {
        client.send(DATA, END_STREAM, 1, body).await;
    }
    let heard = client.hear(Some(1)).await;
    assert!(heard.heads > 0 || !heard.resets.is_empty() || heard.goaway.is_some(), "{what}: no answer: {heard:?}");
    for message in instance.messages(what) {
        assert_eq!(message.path(), "/up", "{what}: {message:?}");
        assert_eq!(message.one("host").as_deref(), Some("a"), "{what}");
        let whole = body.unwrap_or_default();
        assert_eq!(message.body, whole, "{what}: the instance got another body");
    }
    // Nothing is left on the instance's connection for the next request to fall over.
    let next = proxy.ask("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(next.status, 200, "{what}");
    let read = instance.messages(what);
    assert!(read.iter().all(|message| ["/up", "/next"].contains(&message.path())), "{what}: {read:?}");
    assert!(proxy.transitions.all().is_empty(), "{what}: held against the instance");
}
