//! Which trailers are passed on. What stands behind a body was not there when the request was decided on, and some
//! servers put it among the head's fields, so that nothing may be said there that only a head, the proxy or a rule may
//! say (RFC 9110, 6.5.1).

use http::{HeaderMap, HeaderName};

/// Names that frame a message, route it, vouch for somebody, modify the request or control the answer (RFC 9110, 6.5.1;
/// listed in RFC 7230, 4.1.2). Sorted.
const BARRED: [&str; 35] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
];

/// Names by which a proxy tells an instance who asks, and from where.
const OF_PROXIES: [&str; 5] = ["baggage", "forwarded", "via", "x-real-ip", "x-request-id"];

/// What else may not stand behind one request's body.
#[derive(Clone, Debug)]
pub enum Taken {
    /// Nothing may: a body of HTTP/1 whose length is declared has no trailers, and a call of gRPC sends none.
    All,
    /// What the request has said, or was not allowed to say.
    Said {
        /// Names of the head as the instance gets it, and those that were taken out of it.
        names: Vec<HeaderName>,
        /// Whether names with underscores pass.
        underscores: bool,
    },
}

/// Takes out of an answer's trailers what no trailer may say.
pub fn of_answer(trailers: &mut HeaderMap) {
    retain(trailers, |name| !is_barred(name.as_str()));
}

/// Takes out of a request's trailers what no trailer may say, and what only its head, a proxy or a rule says.
pub fn of_request(trailers: &mut HeaderMap, taken: &Taken) {
    let Taken::Said { names, underscores } = taken else { return trailers.clear() };
    retain(trailers, |name| {
        let text = name.as_str();
        let of_proxies = OF_PROXIES.contains(&text) || text.starts_with("x-forwarded-");
        let odd = text.contains('_') && !underscores;
        !is_barred(text) && !of_proxies && !odd && !names.contains(name)
    });
}

fn retain(trailers: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    let unwanted: Vec<HeaderName> = trailers.keys().filter(|name| !passes(name)).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

fn is_barred(name: &str) -> bool {
    BARRED.binary_search(&name).is_ok() || name.starts_with("x-pointsman-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 5] = ["digest", "etag", "grpc-status", "server-timing", "x-sum"];

    fn left(names: &[&'static str], strip: impl Fn(&mut HeaderMap)) -> Vec<String> {
        let mut trailers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), "1".parse().unwrap())).collect();
        strip(&mut trailers);
        let mut left: Vec<String> = trailers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn what_frames_routes_or_vouches_is_taken_out_and_the_rest_passes() {
        assert!(BARRED.is_sorted(), "it is searched");
        let nothing = Taken::Said { names: Vec::new(), underscores: false };
        let barred = [&BARRED[..], &["x-pointsman-debug"], &GOOD].concat();
        assert_eq!(left(&barred, of_answer), GOOD);
        assert_eq!(left(&barred, |trailers| of_request(trailers, &nothing)), GOOD);
        let of_proxies = [&OF_PROXIES[..], &["x-forwarded-for", "x-forwarded-host"]].concat();
        assert!(left(&of_proxies, |trailers| of_request(trailers, &nothing)).is_empty());
        assert_eq!(left(&of_proxies, of_answer).len(), of_proxies.len(), "an instance may tell the client");
    }

    #[test]
    fn a_request_says_nothing_behind_its_body_that_its_head_says() {
        let names = vec![HeaderName::from_static("x-user")];
        let sent = ["x-user", "x_user", "x-sum"];
        for (underscores, expected) in [(false, &["x-sum"][..]), (true, &["x-sum", "x_user"])] {
            let taken = Taken::Said { names: names.clone(), underscores };
            assert_eq!(left(&sent, |trailers| of_request(trailers, &taken)), expected);
        }
        assert_eq!(left(&sent, of_answer), ["x-sum", "x-user", "x_user"]);
    }
}
