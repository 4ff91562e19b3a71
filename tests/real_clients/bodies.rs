//! curl and nginx: large bodies up and down, unchanged, in every version of HTTP.
//!
//! 1 GiB each way with `REAL_BODIES_MIB=1024`; without it less, since a debug build takes two minutes for that.

use std::path::Path;
use std::time::Duration;

use crate::curl::curl;
use crate::ground::{Ground, Service};
use crate::nginx::Nginx;
use crate::tools::run;

const BY_DEFAULT_MIB: u64 = 256;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_come_up_and_down_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Nginx::start(folder.path(), "one");
    let ground = Ground::new(&[Service::new("web", &[nginx.port])], "").await;
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (up, down, ca) = (at("up"), at("down"), ground.at("ca.pem"));
    let sum = write(Path::new(&up), size_mib());
    let tls: [&str; 2] = ["--cacert", ca.to_str().unwrap()];
    let ways: [(&str, &str, Vec<&str>); 4] = [
        ("http://web.shop.test/http1", "http", vec!["--http1.1"]),
        ("http://web.shop.test/h2c", "http", vec!["--http2-prior-knowledge"]),
        ("https://web.shop.test/tls1", "https", [&tls[..], &["--http1.1"]].concat()),
        ("https://web.shop.test/tls2", "https", [&tls[..], &["--http2"]].concat()),
    ];
    for (url, scheme, args) in ways {
        let to = if scheme == "http" { ground.plain } else { ground.tls };
        let shown = ["--write-out", "%{http_code} %{size_upload}"];
        let began = std::time::Instant::now();
        let mut upload = curl(url, to, &[&args[..], &shown, &["--upload-file", &up]].concat());
        let told = tokio::task::spawn_blocking(move || run(&mut upload, Duration::from_secs(180))).await.unwrap();
        assert_eq!(told, format!("201 {}", size_mib() << 20), "{url}");
        let uploaded = began.elapsed();
        let stored = nginx.file(url.rsplit('/').next().unwrap());
        assert_eq!(sha256(&stored), sum, "{url}: as nginx has stored it");
        let began = std::time::Instant::now();
        let mut download = curl(url, to, &[&args[..], &["--output", &down]].concat());
        tokio::task::spawn_blocking(move || run(&mut download, Duration::from_secs(180))).await.unwrap();
        let downloaded = began.elapsed();
        assert_eq!(sha256(Path::new(&down)), sum, "{url}: as curl got it");
        std::fs::remove_file(stored).unwrap();
        println!("{url}: {} MiB up in {uploaded:.1?}, down in {downloaded:.1?}", size_mib());
    }
}
