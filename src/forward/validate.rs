//! What a request must be before anything is decided on it: the part of RFC 9110 and 9112 that hyper leaves to us.

use std::borrow::Cow;

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Uri, Version};

use super::error::Detail;
use super::survey::Survey;
use crate::engine::paths::Paths;
use crate::engine::route::host;

/// Where a valid request wants to go, as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'r> {
    /// Lower case, without port and trailing dot; empty for an HTTP/1.0 request that names none.
    pub host: Cow<'r, str>,
    /// Normalised, without the query.
    pub path: Cow<'r, str>,
}

/// Checks a request's head.
pub fn check<'h>(head: &'h Parts, seen: Survey, target_size: usize, paths: &Paths) -> Result<Target<'h>, Detail> {
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Detail::MethodRefused);
    }
    if head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > target_size {
        return Err(Detail::TargetTooLong);
    }
    if seen.has(Survey::TRANSFER_ENCODING) {
        one_chunked(&head.headers)?;
    }
    let named = host_field(head, seen)?;
    match absolute_authority(&head.uri)? {
        // RFC 9112 lets a server prefer the target's; two that differ are an attempt to be read in two ways.
        Some(authority) if !authority.as_str().eq_ignore_ascii_case(named) => return Err(Detail::BadRequest),
        _ => {}
    }
    let host =
        if named.is_empty() { Cow::Borrowed("") } else { host::normalise(named).map_err(|_| Detail::BadRequest)? };
    let path = paths.normalise(head.uri.path()).map_err(|_| Detail::PathRefused)?;
    Ok(Target { host, path })
}

/// The target as an instance gets it: origin-form. Rebuilt only when it came in absolute-form.
#[must_use]
pub fn origin_form(uri: Uri) -> Uri {
    if uri.scheme().is_none() && uri.authority().is_none() {
        return uri;
    }
    uri.into_parts().path_and_query.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// The target in origin-form, with the path that was matched.
#[must_use]
pub fn matched_form(uri: Uri, paths: &Paths) -> Uri {
    let path = match paths.normalise(uri.path()) {
        Ok(Cow::Owned(path)) => path,
        // It is that path already; what is refused does not come this far.
        Ok(Cow::Borrowed(_)) | Err(_) => return uri,
    };
    let target = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(target).map_or(uri, Uri::from)
}

/// Transfer-Encoding is passed on only as one `chunked`.
fn one_chunked(headers: &HeaderMap) -> Result<(), Detail> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Detail::TransferCoding),
    }
}

/// The one Host field.
fn host_field(head: &Parts, seen: Survey) -> Result<&str, Detail> {
    if seen.has(Survey::HOSTS) {
        return Err(Detail::BadRequest);
    }
    match head.headers.get(HOST) {
        Some(value) if !value.is_empty() => value.to_str().map_err(|_| Detail::BadRequest),
        None if head.version == Version::HTTP_10 => Ok(""),
        _ => Err(Detail::BadRequest),
    }
}

/// The authority of an absolute-form target; `None` for origin-form.
fn absolute_authority(uri: &Uri) -> Result<Option<&Authority>, Detail> {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(None),
        (Some("http" | "https"), Some(authority)) => Ok(Some(authority)),
        _ => Err(Detail::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn verdict(build: http::request::Builder) -> Result<(String, String), Detail> {
        let (head, ()) = build.body(()).unwrap().into_parts();
        let seen = Survey::of(&head.headers);
        check(&head, seen, 64, &Paths::default()).map(|target| (target.host.into_owned(), target.path.into_owned()))
    }

    #[test]
    fn hosts_are_bared_and_bad_ones_refused() {
        for (given, expected) in [
            ("Shop.Example.com:8080", Some("shop.example.com")),
            ("shop.example.com.", Some("shop.example.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("", None),
            ("a b", None),
            ("a/b", None),
            ("a@b", None),
            ("a,b", None),
            ("a:80:80", None),
            ("[::1", None),
        ] {
            let got = verdict(Request::get("/").header("host", given));
            assert_eq!(got.ok().map(|(host, _)| host).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        let check = |build: http::request::Builder, detail| assert_eq!(verdict(build), Err(detail));
        check(Request::get("/"), Detail::BadRequest);
        check(Request::get("/").header("host", "a").header("host", "a"), Detail::BadRequest);
        check(Request::get("http://b/").header("host", "a"), Detail::BadRequest);
        check(Request::get("ftp://a/").header("host", "a"), Detail::BadRequest);
        check(Request::get("/a%2fb").header("host", "a"), Detail::PathRefused);
        check(Request::options("*").header("host", "a"), Detail::PathRefused);
        check(Request::connect("a:80").header("host", "a:80"), Detail::MethodRefused);
        check(Request::trace("/").header("host", "a"), Detail::MethodRefused);
        check(Request::get(format!("/{}", "x".repeat(64))).header("host", "a"), Detail::TargetTooLong);
        let coded = |coding: &str| Request::post("/").header("host", "a").header("transfer-encoding", coding);
        check(coded("gzip, chunked"), Detail::TransferCoding);
        check(coded("chunked").header("transfer-encoding", "chunked"), Detail::TransferCoding);
        assert!(verdict(coded("Chunked")).is_ok());
        assert_eq!(verdict(Request::get("http://A/x").header("host", "a")).unwrap(), ("a".into(), "/x".into()));
        assert_eq!(verdict(Request::get("/a/../b").header("host", "a")).unwrap().1, "/b");
        assert_eq!(verdict(Request::get("/").version(Version::HTTP_10)).unwrap().0, "");
    }

    #[test]
    fn an_absolute_target_is_stripped() {
        assert_eq!(origin_form(Uri::from_static("http://a/x?y=1")), "/x?y=1");
        assert_eq!(origin_form(Uri::from_static("/x?y=1")), "/x?y=1");
        assert_eq!(matched_form(Uri::from_static("/a/../x?y=/../"), &Paths::default()), "/x?y=/../");
    }
}
