//! The strictest reading of HTTP/1.1 requests, written apart from the proxy's: an instance that takes no other bytes
//! than these. What the proxy sends and this refuses, some server could read in another way.

/// A request as an instance read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Message {
    /// The values of a field, in order.
    pub fn all<'m>(&'m self, name: &str) -> Vec<&'m [u8]> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
    }

    /// The one value of a field, as text.
    pub fn one(&self, name: &str) -> Option<String> {
        match self.all(name).as_slice() {
            [value] => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        }
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }
}

/// The first request, and how many bytes it has. `None`: more has to come.
pub fn request(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > 200_000 { Err("an endless head".to_owned()) } else { Ok(None) };
    };
    let mut lines = split_lines(&bytes[..end])?.into_iter();
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(format!("no request line: {}", shown(line)));
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(format!("no method: {}", shown(line)));
    }
    if !target.starts_with(b"/") || !target.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..) && *byte != b'#') {
        return Err(format!("no origin-form target: {}", shown(line)));
    }
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut message = Message { method: text(method), target: text(target), fields, body: Vec::new() };
    check_fields(&message)?;
    let rest = &bytes[end + 4..];
    let Some((body, length)) = body(&message, rest)? else { return Ok(None) };
    message.body = body;
    Ok(Some((message, end + 4 + length)))
}

fn check_fields(message: &Message) -> Result<(), String> {
    if message.all("host").len() != 1 {
        return Err(format!("{} Hosts", message.all("host").len()));
    }
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "expect", "upgrade"] {
        if !message.all(gone).is_empty() {
            return Err(format!("`{gone}` was passed on"));
        }
    }
    if let Some((name, _)) = message.fields.iter().find(|(name, _)| name.contains('_')) {
        return Err(format!("`{name}` was passed on"));
    }
    Ok(())
}

/// The body and its length on the wire.
fn body(message: &Message, rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Some((Vec::new(), 0))),
        ([length], []) => {
            let digits = !length.is_empty() && length.len() < 16 && length.iter().all(u8::is_ascii_digit);
            let length = digits.then(|| String::from_utf8_lossy(length).parse::<usize>().ok()).flatten();
            let length = length.ok_or("no length")?;
            Ok((rest.len() >= length).then(|| (rest[..length].to_vec(), length)))
        }
        ([], [b"chunked"]) => chunks(rest),
        _ => Err("more than one framing".to_owned()),
    }
}

fn chunks(rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&rest[at..], b"\r\n") else { return Ok(None) };
        let line = &rest[at..at + end];
        if line.is_empty() || line.len() > 8 || !line.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("no chunk size: {}", shown(line)));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(line), 16).map_err(|error| error.to_string())?;
        at += end + 2;
        if size == 0 {
            return trailers(&rest[at..]).map(|length| length.map(|length| (body, at + length)));
        }
        if rest.len() < at + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&rest[at..at + size]);
        if &rest[at + size..at + size + 2] != b"\r\n" {
            return Err("a chunk longer than it says".to_owned());
        }
        at += size + 2;
    }
}

/// The length of the trailer section, its end included.
fn trailers(rest: &[u8]) -> Result<Option<usize>, String> {
    if rest.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let Some(end) = find(rest, b"\r\n\r\n") else { return Ok(None) };
    for line in split_lines(&rest[..end])? {
        let (name, _) = field(line)?;
        let name = name.to_ascii_lowercase();
        let framing = ["host", "content-length", "transfer-encoding", "te", "trailer", "connection", "authorization"];
        // The proxy and its rules say these in the head.
        let said = ["x-method", "x-host", "x-path", "x-request-id", "forwarded", "cookie"];
        if framing.contains(&name.as_str())
            || said.contains(&name.as_str())
            || name.starts_with("x-forwarded-")
            || name.contains('_')
        {
            return Err(format!("the trailer `{name}` was passed on"));
        }
    }
    Ok(Some(end + 4))
}

fn split_lines(head: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = head;
    loop {
        let (line, tail) = match find(rest, b"\r\n") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(format!("a bare CR, LF or NUL: {}", shown(line)));
        }
        lines.push(line);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(lines),
        }
    }
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| format!("no field: {}", shown(line)))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(format!("no field name: {}", shown(line)));
    }
    if value.iter().any(|byte| *byte != b'\t' && (*byte < 0x20 || *byte == 0x7f)) {
        return Err(format!("a control character in a value: {}", shown(line)));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
