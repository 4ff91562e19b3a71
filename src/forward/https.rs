//! From plain to encrypted: the redirect of a plain listener, and the promise of an encrypted one to stay (RFC 6797).

use http::header::{CONTENT_TYPE, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};

use bytes::Bytes;

use super::answer::{Refusal, own};
use super::body::Source;
use super::error::Detail;
use super::exchange::Exchange;

/// The same target over https. `host`: as the rules see it; a request without one cannot be sent anywhere.
pub fn redirect(uri: &Uri, host: &str, port: u16) -> Result<Response<Source>, Refusal> {
    if host.is_empty() {
        return Err(Detail::BadRequest.into());
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let location = match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    let mut response = own(StatusCode::PERMANENT_REDIRECT, Bytes::new(), HeaderValue::from_static("text/plain"));
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).map_err(|_| Detail::BadRequest)?);
    Ok(response)
}

/// Adds the listener's `Strict-Transport-Security`, if it has one, nobody has set it and no rule has a word on it: a
/// promise that an operator takes back for a host must not be made by our own answers either, for browsers keep it.
pub fn promise(headers: &mut HeaderMap, exchange: &Exchange) {
    let connection = exchange.connection();
    if let Some(hsts) =
        connection.entrance.hsts.as_ref().filter(|_| connection.tls.is_some() && !exchange.hsts_is_ruled)
    {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
}
