//! `pointsman catalog [--consul URL] [--service NAME]…`: the live catalog as a catalog file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::consul::{self, read_once};
use crate::config::{self, CatalogSource, Flags};
use crate::engine::format::catalog_file::{self, CatalogFile};
use crate::engine::instance::Instance;
use crate::engine::label::Text;
use crate::serve::translate;

/// The file was written.
const WRITTEN: u8 = 0;
/// The catalog cannot be reached, or does not answer with a catalog.
const UNREACHABLE: u8 = 1;
/// The settings cannot be used.
const UNUSABLE: u8 = 2;

/// What `catalog` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Consul agent; otherwise as `run` finds it (file, environment, `CONSUL_*`, 127.0.0.1:8500)
    #[arg(long, value_name = "URL")]
    pub consul: Option<String>,
    /// Only this service; repeatable
    #[arg(long = "service", value_name = "NAME")]
    pub services: Vec<String>,
    /// A configuration file, for tokens, certificates and the like
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Reads the catalog as the command line says.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(args: &Args, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let flags = Flags { config: args.config.clone(), consul: args.consul.clone(), ..Flags::default() };
    let settings = match config::load(&flags, super::run::environment()) {
        Ok(loaded) => loaded.settings,
        Err(found) => {
            write!(err, "{}", found.render())?;
            return Ok(UNUSABLE);
        }
    };
    let CatalogSource::Consul(consul) = settings.catalog.source else {
        writeln!(err, "the configuration names a catalog file, not a Consul; give --consul URL")?;
        return Ok(UNUSABLE);
    };
    let settings = translate::consul(*consul, settings.label_keys);
    let asked = Asked { settings, services: args.services.clone() };
    super::run::on_control_plane(catalog(&asked, out, err))?
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where and how.
    pub settings: consul::Settings,
    /// These services only; none: all that `select` chooses, or all but `consul`.
    pub services: Vec<String>,
}

/// Reads the catalog once and writes it to `out`; what cannot be used is said on `err`. Gives the exit status: 0 written,
/// 1 unreachable.
///
/// # Errors
/// `out` or `err` cannot be written.
pub async fn catalog(asked: &Asked, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let read = match read_once(&asked.settings, &asked.services).await {
        Ok(read) => read,
        Err(error) => {
            writeln!(err, "pointsman catalog: {error}")?;
            return Ok(UNREACHABLE);
        }
    };
    for problem in &read.problems {
        writeln!(err, "left out: {}", problem.escape_debug())?;
    }
    for service in read.services.iter().filter(|service| service.instances.is_empty()) {
        writeln!(err, "service {} has no instances (or the token may not read it)", service.name.escape_debug())?;
    }
    let services: BTreeMap<Text, Vec<Arc<Instance>>> =
        read.services.into_iter().map(|service| (service.name, service.instances)).collect();
    let file = CatalogFile { services: services.into_iter().collect() };
    out.write_all(catalog_file::write(&file).as_bytes())?;
    Ok(WRITTEN)
}
