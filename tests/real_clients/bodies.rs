//! curl and nginx: large bodies up and down, unchanged, in every version of HTTP.
//!
//! 1 GiB each way; `REAL_BODIES_MIB` makes it less. Two at a time: over HTTP/2 a busy machine waits more than it works.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::curl::curl;
use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::tools::run;

const BY_DEFAULT_MIB: u64 = 1_024;
/// For one way of one body, on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(400);

fn size_mib() -> u64 {
    std::env::var("REAL_BODIES_MIB").map_or(BY_DEFAULT_MIB, |text| text.parse().expect("a number of MiB"))
}

/// Bytes that do not repeat where buffers do: every block of 1 MiB is the one before, rotated by its number.
fn write(path: &Path, mib: u64) -> String {
    use std::io::Write as _;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 20);
    while block.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    let mut file = std::fs::File::create(path).unwrap();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for number in 0..mib {
        block.rotate_left(usize::try_from(number % 977).unwrap() + 1);
        file.write_all(&block).unwrap();
        digest.update(&block);
    }
    data_encoding::HEXLOWER.encode(digest.finish().as_ref())
}

fn sha256(path: &Path) -> String {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path).unwrap();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return data_encoding::HEXLOWER.encode(digest.finish().as_ref()),
            count => digest.update(&piece[..count]),
        }
    }
}

/// Runs it to its end: what it printed, and how long it took.
async fn timed(mut command: Command) -> (String, Duration) {
    let began = Instant::now();
    let told = tokio::task::spawn_blocking(move || run(&mut command, LONGEST)).await.unwrap();
    (told, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_come_up_and_down_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let (up, ca) = (folder.path().join("up"), ground.at("ca.pem"));
    let sum = write(&up, size_mib());
    let pass = async |scheme: &str, name: &str, version: &str| {
        let url = format!("{scheme}://web.shop.test/{name}");
        let (to, down) = (if scheme == "http" { ground.plain } else { ground.tls }, folder.path().join(name));
        let slow = LONGEST.as_secs().to_string();
        let args = [version, "--max-time", &slow, "--cacert", ca.to_str().unwrap()];
        let shown = ["--write-out", "%{http_code} %{size_upload}", "--upload-file", up.to_str().unwrap()];
        let (told, uploaded) = timed(curl(&url, to, &[&args[..], &shown].concat())).await;
        assert_eq!(told, format!("201 {}", size_mib() << 20), "{url}");
        let stored = nginx.file(name);
        assert_eq!(sha256(&stored), sum, "{url}: as nginx has stored it");
        let output = ["--output", down.to_str().unwrap()];
        let (_, downloaded) = timed(curl(&url, to, &[&args[..], &output].concat())).await;
        assert_eq!(sha256(&down), sum, "{url}: as curl got it");
        std::fs::remove_file(stored).unwrap();
        std::fs::remove_file(down).unwrap();
        println!("{url}: {} MiB up in {uploaded:.1?}, down in {downloaded:.1?}", size_mib());
    };
    let others = async {
        pass("http", "http1", "--http1.1").await;
        pass("https", "tls1", "--http1.1").await;
        pass("http", "h2c", "--http2-prior-knowledge").await;
    };
    tokio::join!(pass("https", "tls2", "--http2"), others);
}
