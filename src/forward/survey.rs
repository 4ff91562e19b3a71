//! One look at a head's fields: which of those that a proxy must touch are there. Most heads have few of them, so the
//! edits afterwards cost little.

use http::{HeaderMap, HeaderValue};

/// Fields that a proxy must touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey(u32);

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Survey { $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)* }
    };
}

marks! {
    /// `Connection`.
    CONNECTION = 0;
    /// `Keep-Alive`.
    KEEP_ALIVE = 1;
    /// `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `HTTP2-Settings`.
    PROXY = 2;
    /// `TE`.
    TE = 3;
    /// `Transfer-Encoding`.
    TRANSFER_ENCODING = 4;
    /// `Upgrade`.
    UPGRADE = 5;
    /// `Expect`.
    EXPECT = 6;
    /// `Host`.
    HOST = 7;
    /// More than one `Host`.
    HOSTS = 8;
    /// `X-Forwarded-For`.
    FORWARDED_FOR = 9;
    /// `X-Forwarded-Proto`.
    FORWARDED_PROTO = 10;
    /// `X-Forwarded-Host`.
    FORWARDED_HOST = 11;
    /// `Forwarded`, or another `X-Forwarded-…`.
    FORWARDED_OTHER = 12;
    /// `X-Request-Id`.
    REQUEST_ID = 13;
    /// A name with an underscore.
    UNDERSCORE = 14;
    /// `Content-Length`.
    CONTENT_LENGTH = 15;
    /// `Cookie`.
    COOKIE = 16;
    /// `Accept`.
    ACCEPT = 17;
    /// `X-Pointsman-Debug`.
    DEBUG_TOKEN = 18;
    /// `Content-Type`.
    CONTENT_TYPE = 19;
}

impl Survey {
    /// Everything that concerns one connection only.
    pub const HOP_BY_HOP: Self = Self(
        Self::CONNECTION.0
            | Self::KEEP_ALIVE.0
            | Self::PROXY.0
            | Self::TE.0
            | Self::TRANSFER_ENCODING.0
            | Self::UPGRADE.0,
    );

    /// Looks at every field once.
    #[must_use]
    pub fn of(headers: &HeaderMap<HeaderValue>) -> Self {
        let mut seen = 0;
        for (name, _) in headers {
            let mark = Self::mark(name.as_str()).0;
            if mark == Self::HOST.0 && seen & mark != 0 {
                seen |= Self::HOSTS.0;
            }
            seen |= mark;
        }
        Self(seen)
    }

    /// Whether any of `marks` is there.
    #[must_use]
    pub fn has(self, marks: Self) -> bool {
        self.0 & marks.0 != 0
    }

    fn mark(name: &str) -> Self {
        match name {
            "connection" => Self::CONNECTION,
            "keep-alive" => Self::KEEP_ALIVE,
            "proxy-connection" | "proxy-authenticate" | "proxy-authorization" | "http2-settings" => Self::PROXY,
            "te" => Self::TE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "expect" => Self::EXPECT,
            "host" => Self::HOST,
            "x-forwarded-for" => Self::FORWARDED_FOR,
            "x-forwarded-proto" => Self::FORWARDED_PROTO,
            "x-forwarded-host" => Self::FORWARDED_HOST,
            "forwarded" => Self::FORWARDED_OTHER,
            "x-request-id" => Self::REQUEST_ID,
            "content-length" => Self::CONTENT_LENGTH,
            "cookie" => Self::COOKIE,
            "accept" => Self::ACCEPT,
            "x-pointsman-debug" => Self::DEBUG_TOKEN,
            "content-type" => Self::CONTENT_TYPE,
            _ => Self::rare(name),
        }
    }

    fn rare(name: &str) -> Self {
        if name.starts_with("x-forwarded-") {
            return Self::FORWARDED_OTHER;
        }
        if name.as_bytes().contains(&b'_') { Self::UNDERSCORE } else { Self(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hosts_are_seen_and_absent_fields_are_not() {
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("a"));
        assert!(!Survey::of(&headers).has(Survey::HOSTS));
        headers.append("host", HeaderValue::from_static("a"));
        headers.append("x_y", HeaderValue::from_static("1"));
        let seen = Survey::of(&headers);
        assert!(seen.has(Survey::HOSTS) && seen.has(Survey::UNDERSCORE));
        assert!(!seen.has(Survey::HOP_BY_HOP) && !seen.has(Survey::FORWARDED_OTHER));
    }
}
