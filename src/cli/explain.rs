//! `pointsman explain`: one request, and why it goes where it goes; from files, or from a live proxy's admin side. With
//! `--token` it writes what a request must bear to be explained by the proxy that takes it.

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::dry::{Told, Written};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::config::{self, Flags};
use crate::debug_token::{Key, LONGEST};
use crate::dry_run::inputs::Unusable;
use crate::dry_run::{explain, inputs};
use crate::engine::format::explanation::{Explanation, Kind};
use crate::engine::format::traffic::{TrafficLine, parse_draw, shown_draw};
use crate::engine::paths::Paths;
use crate::engine::time::{Draw, Millis};
use crate::engine::units;

/// An instance, a redirect or an answer.
const ROUTED: u8 = 0;
/// Nobody gets it.
const NOT_ROUTED: u8 = 3;
/// Something cannot be read or asked.
const UNREADABLE: u8 = 2;
/// To connect to the admin side, and for each wait on it.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rule files, or folders of them.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["admin", "token"])]
    pub rules: Vec<PathBuf>,
    /// The catalog file; `-` is standard input.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["admin", "token"])]
    pub catalog: Option<PathBuf>,
    /// The proxy's configuration file: its `paths` say how the request's path is read. Default: the defaults
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin", "token"])]
    pub config: Option<PathBuf>,
    /// Ask the proxy whose admin side listens here.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["rules", "catalog", "region", "zone"])]
    pub admin: Option<String>,
    /// The file with the admin side's token, where it wants one.
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub token_file: Option<PathBuf>,
    /// Write a field that makes a live proxy answer this request with its trace; needs the key of its `debug_token`
    #[arg(long, requires = "key_file", conflicts_with_all = ["rules", "catalog", "admin", "seed", "draw"])]
    pub token: bool,
    /// The file with that key
    #[arg(long, value_name = "FILE", requires = "token")]
    pub key_file: Option<PathBuf>,
    /// How long the token is good for, 24 h at most
    #[arg(long = "for", value_name = "TIME", default_value = "5m", requires = "token", value_parser = time)]
    pub good_for: Duration,
    /// The name that a TLS client asks for (SNI). Without METHOD and URL: where a `tls_passthrough` listener sends it; ''
    /// asks for nobody.
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    pub sni: Option<String>,
    /// A name (SAN) of the client's certificate; repeatable.
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    pub san: Vec<String>,
    /// GET, POST, …
    #[arg(required_unless_present = "sni", requires = "url")]
    pub method: Option<String>,
    /// `http://host/path?query`; without a scheme it is http.
    #[arg(required_unless_present = "sni")]
    pub url: Option<String>,
    /// A header of the request; repeatable.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The client's address. Default 127.0.0.1.
    #[arg(long, value_name = "IP")]
    pub client: Option<IpAddr>,
    /// The luck, from a number. Default 0.
    #[arg(long, value_name = "N", conflicts_with = "draw")]
    pub seed: Option<u64>,
    /// The luck of a certain request: the draw in its log line or debug header.
    #[arg(long, value_name = "HEX", value_parser = |text: &str| parse_draw(text).ok_or("not a hexadecimal number of at most 16 digits"))]
    pub draw: Option<Draw>,
    /// Where the proxy stands, and how the explanation is written.
    #[command(flatten)]
    pub told: Told,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("{0}")]
    Asked(String),
    #[error("{0}")]
    Input(#[from] Unusable),
    #[error("{0}")]
    Request(#[from] crate::engine::format::traffic::TrafficError),
    #[error("cannot ask {address}: {source}")]
    Admin {
        address: String,
        #[source]
        source: io::Error,
    },
}

/// Explains to `out`; what is wrong goes to `err`. The exit status: 0 routed (also redirect, respond), 3 not routed,
/// 2 for input that cannot be used.
pub fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    if let Some(path) = args.key_file.as_deref().filter(|_| args.token) {
        return match token(args, path) {
            Ok(token) => writeln!(out, "{}: {token}", crate::forward::traced::X_DEBUG).map(|()| ROUTED),
            Err(error) => writeln!(err, "{error}").map(|()| UNREADABLE),
        };
    }
    let explanation = match explained(args) {
        Ok(explanation) => explanation,
        Err(error) => {
            writeln!(err, "{}", error.to_string().trim_end())?;
            return Ok(UNREADABLE);
        }
    };
    match args.told.format {
        Written::Text => write!(out, "{}", explanation.text())?,
        Written::Json => writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?,
    }
    Ok(if explanation.result.outcome == Kind::Refused { NOT_ROUTED } else { ROUTED })
}

fn explained(args: &Args) -> Result<Explanation, ExplainError> {
    let line = traffic_line(args)?;
    if let Some(address) = &args.admin {
        return ask(address, args.token_file.as_deref(), &line)
            .map_err(|source| ExplainError::Admin { address: address.clone(), source });
    }
    let request = line.request_by(&paths(args.config.as_deref())?)?;
    let catalog = args.catalog.as_deref().ok_or_else(|| ExplainError::Asked("--catalog is needed".into()))?;
    let table = inputs::from_files(&args.rules, catalog, args.told.place())?;
    let trusted = table.router.trusts(&request.host, &request.path, request.sender());
    let draw = request.draw.unwrap_or_default();
    Ok(explain::explain(&table, &request.view(trusted), draw, Millis(0)))
}

/// How the proxy with this configuration reads paths.
fn paths(config: Option<&Path>) -> Result<Paths, ExplainError> {
    let Some(config) = config else { return Ok(Paths::default()) };
    let flags = Flags { config: Some(config.to_owned()), ..Flags::default() };
    let loaded = config::load(&flags, super::run::environment());
    loaded.map(|loaded| loaded.settings.paths).map_err(|found| ExplainError::Asked(found.render()))
}

/// A token for the request that was asked for: its host and its path.
fn token(args: &Args, path: &Path) -> Result<String, ExplainError> {
    let request = traffic_line(args)?.request()?;
    let key = Key::read(path).map_err(|error| ExplainError::Asked(format!("{}: {error}", path.display())))?;
    Ok(key.issue(&request.host, &request.path, SystemTime::now(), args.good_for))
}

fn time(text: &str) -> Result<Duration, String> {
    let time = units::duration(text).filter(|ms| *ms >= 1_000).map(Duration::from_millis);
    time.filter(|time| *time <= LONGEST).ok_or_else(|| "must be a time from 1s to 24h, such as 5m".into())
}

/// The request that was asked for. A `Host` header stands in for the URL's host.
fn traffic_line(args: &Args) -> Result<TrafficLine, ExplainError> {
    let asked = |message: String| ExplainError::Asked(message);
    let luck = args.draw.unwrap_or_else(|| Draw(args.seed.unwrap_or(0)).fork(0));
    let (Some(method), Some(url)) = (&args.method, &args.url) else {
        if !args.headers.is_empty() || !args.san.is_empty() {
            let why = "a greeting that is passed on has no headers, and shows no certificate; for a request over TLS, \
                       name METHOD and URL too";
            return Err(asked(why.into()));
        }
        let line = TrafficLine::of_greeting(args.sni.as_deref().unwrap_or_default());
        return Ok(TrafficLine { client: args.client, draw: Some(shown_draw(luck)), ..line });
    };
    let (sni, san) = (args.sni.clone().filter(|name| !name.is_empty()), args.san.clone());
    let line = TrafficLine { sni, san, ..TrafficLine::of_url(method, url)? };
    let mut host = Some(line.host.clone()).filter(|host| !host.is_empty());
    let mut headers: Map<String, Value> = Map::new();
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(asked(format!("`{header}` is not a header; write 'name: value'")));
        };
        let name = HeaderName::try_from(name.trim()).map_err(|_| asked(format!("`{name}` is not a header's name")))?;
        let value = value.trim().to_owned();
        HeaderValue::from_str(&value).map_err(|_| asked(format!("`{value}` is not a header's value")))?;
        if name == http::header::HOST {
            host = Some(value);
            continue;
        }
        match headers.entry(name.as_str()).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(values) => values.push(value.into()),
            _ => return Err(asked(format!("`{header}` cannot be added"))),
        }
    }
    let host = host.ok_or_else(|| asked("the URL has no host, and there is no Host header".into()))?;
    Ok(TrafficLine { host, headers, client: args.client, draw: Some(shown_draw(luck)), ..line })
}

/// Posts the line to a proxy's admin side. HTTP/1.0, so that the answer ends with the connection.
fn ask(address: &str, token_file: Option<&Path>, line: &TrafficLine) -> io::Result<Explanation> {
    let body = line.write();
    let token = match token_file {
        Some(path) => format!("authorization: Bearer {}\r\n", std::fs::read_to_string(path)?.trim()),
        None => String::new(),
    };
    let mut stream = connect(address)?;
    write!(
        stream,
        "POST /v1/explain HTTP/1.0\r\nhost: {address}\r\n{token}content-type: application/json\r\n\
         accept: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(broken)?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).into_owned(), &answer[end + 4..]);
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).ok_or_else(broken)?;
    if status != "200" {
        return Err(io::Error::other(format!("it answered {status}: {}", String::from_utf8_lossy(body).trim())));
    }
    Ok(serde_json::from_slice(body)?)
}

/// An IP address with a port, or `localhost` with one: no name is resolved, because that waits for who knows how long.
fn connect(address: &str) -> io::Result<TcpStream> {
    let numeric = address.strip_prefix("localhost:").map_or(address.to_owned(), |port| format!("127.0.0.1:{port}"));
    let address: SocketAddr =
        numeric.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "write an IP address and a port"))?;
    let stream = TcpStream::connect_timeout(&address, ADMIN_TIMEOUT)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
