//! What a request must be before anything is decided on it: the part of RFC 9110 and 9112 that hyper leaves to us.

use std::borrow::Cow;

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, Version};

use super::error::Detail;
use super::survey::Survey;

/// Checks a request's head. Returns its host (lower case, without port and trailing dot), which is empty for an
/// HTTP/1.0 request that names none.
pub fn check<'r, B>(request: &'r Request<B>, seen: Survey, target_size: usize) -> Result<Cow<'r, str>, Detail> {
    if request.method() == Method::CONNECT || request.method() == Method::TRACE {
        return Err(Detail::MethodRefused);
    }
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |target| target.as_str().len()) > target_size {
        return Err(Detail::TargetTooLong);
    }
    if !uri.path().starts_with('/') {
        return Err(Detail::BadRequest);
    }
    if seen.has(Survey::TRANSFER_ENCODING) {
        one_chunked(request.headers())?;
    }
    let host = host_field(request, seen)?;
    match absolute_authority(uri)? {
        // RFC 9112 lets a server prefer the target's; two that differ are an attempt to be read in two ways.
        Some(authority) if !authority.as_str().eq_ignore_ascii_case(host) => Err(Detail::BadRequest),
        _ => Ok(bare_host(host)),
    }
}

/// The target as an instance gets it: origin-form. Rebuilt only when it came in absolute-form.
#[must_use]
pub fn origin_form(uri: Uri) -> Uri {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return uri;
    }
    uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// Transfer-Encoding is passed on only as one `chunked`.
fn one_chunked(headers: &HeaderMap) -> Result<(), Detail> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Detail::TransferCoding),
    }
}

/// The one Host field, valid.
fn host_field<B>(request: &Request<B>, seen: Survey) -> Result<&str, Detail> {
    if seen.has(Survey::HOSTS) {
        return Err(Detail::BadRequest);
    }
    let Some(value) = request.headers().get(HOST) else {
        return if request.version() == Version::HTTP_10 { Ok("") } else { Err(Detail::BadRequest) };
    };
    match value.to_str() {
        Ok(host) if is_host(host) => Ok(host),
        _ => Err(Detail::BadRequest),
    }
}

/// The authority of an absolute-form target; `None` for origin-form.
fn absolute_authority(uri: &Uri) -> Result<Option<&Authority>, Detail> {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(None),
        (Some("http" | "https"), Some(authority)) if is_host(authority.as_str()) => Ok(Some(authority)),
        _ => Err(Detail::BadRequest),
    }
}

/// `host [":" port]`, or `"[" address "]" [":" port]`. Names are letters, digits, `-`, `.` and `_`.
fn is_host(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, rest)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), rest),
            None => return false,
        },
        None => {
            let end = host.find(':').unwrap_or(host.len());
            let (name, rest) = host.split_at(end);
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            (!name.is_empty() && name.len() <= 255 && name.bytes().all(allowed), rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok() && !digits.starts_with('+'),
        None => rest.is_empty(),
    };
    name && port
}

/// Without port and trailing dot, in lower case. Borrowed unless the client wrote capitals.
fn bare_host(host: &str) -> Cow<'_, str> {
    let name = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(build: http::request::Builder) -> Result<String, Detail> {
        let request = build.body(()).unwrap();
        let seen = Survey::of(request.headers());
        check(&request, seen, 64).map(Cow::into_owned)
    }

    #[test]
    fn hosts_are_bared_and_bad_ones_refused() {
        for (given, expected) in [
            ("Shop.Example.com:8080", Some("shop.example.com")),
            ("shop.example.com.", Some("shop.example.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("a_b", Some("a_b")),
            ("", None),
            ("a b", None),
            ("a/b", None),
            ("a@b", None),
            ("a,b", None),
            ("a:80:80", None),
            ("a:99999", None),
            ("a:+80", None),
            ("[::1", None),
            ("[zz]", None),
        ] {
            let got = verdict(Request::get("/").header("host", given));
            assert_eq!(got.ok().as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let check = |build: http::request::Builder, detail| assert_eq!(verdict(build), Err(detail));
        check(Request::get("/"), Detail::BadRequest);
        check(Request::get("/").header("host", "a").header("host", "a"), Detail::BadRequest);
        check(Request::get("http://b/").header("host", "a"), Detail::BadRequest);
        check(Request::get("ftp://a/").header("host", "a"), Detail::BadRequest);
        check(Request::options("*").header("host", "a"), Detail::BadRequest);
        check(Request::connect("a:80").header("host", "a:80"), Detail::MethodRefused);
        check(Request::trace("/").header("host", "a"), Detail::MethodRefused);
        check(Request::get(format!("/{}", "x".repeat(64))).header("host", "a"), Detail::TargetTooLong);
        let coded = |coding: &str| Request::post("/").header("host", "a").header("transfer-encoding", coding);
        check(coded("gzip, chunked"), Detail::TransferCoding);
        check(coded("chunked").header("transfer-encoding", "chunked"), Detail::TransferCoding);
        assert!(verdict(coded("Chunked")).is_ok());
        assert_eq!(verdict(Request::get("http://A/x").header("host", "a")).unwrap(), "a");
        assert_eq!(verdict(Request::get("/").version(Version::HTTP_10)).unwrap(), "");
    }

    #[test]
    fn an_absolute_target_is_stripped() {
        assert_eq!(origin_form(Uri::from_static("http://a/x?y=1")), "/x?y=1");
        assert_eq!(origin_form(Uri::from_static("/x?y=1")), "/x?y=1");
    }
}
