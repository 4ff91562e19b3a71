//! A sample instance for trying things out: `cargo run --example instance -- PORT ID [key=value]…`.
//!
//! It answers every request with its id and labels, and prints the address it listens on (port 0: any free one).

use std::collections::BTreeMap;

use pointsman::cli::demo::instances::DemoInstance;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(port), Some(id)) = (args.next().and_then(|p| p.parse().ok()), args.next()) else {
        eprintln!("usage: instance PORT ID [key=value]…");
        std::process::exit(2);
    };
    let labels: BTreeMap<String, String> =
        args.filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let instance = DemoInstance::start(&id, port, &labels).await?;
    println!("{}", instance.addr);
    std::future::pending().await
}
