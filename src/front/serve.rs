//! The life of a front worker: it takes what its master passes, and serves until it is to stop.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use preforkd_http::{
    Board, Config, Files, FrontListeners, Life, descriptors, layer, serve_service_over,
};
use preforkd_worker::connections::PARTS;
use preforkd_worker::contract::{self, Kind};
use preforkd_worker::counters::Counters;
use preforkd_worker::env;
use preforkd_worker::front::Settings;
use preforkd_worker::gauges::Gauges;
use preforkd_worker::logger;
use preforkd_worker::notify::Notifier;
use preforkd_worker::passed::Passed;
use preforkd_worker::running::{PLACES, Running};
use preforkd_worker::title::{self, Room};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::clients::Clients;
use crate::counting::Counting;
use crate::crowds::Crowds;
use crate::h2::{Shared, Wire};
use crate::layers::gate::Gate;
use crate::layers::rate::{self, Table};
use crate::proofs::Proofs;
use crate::service::Front;
use crate::sites::{FilesOfSites, Sites};
use crate::tls;
use crate::updates::{Updates, read_shared};
use crate::visits::Visited;

/// Runs the worker to its end.
///
/// # Errors
/// It cannot start, or cannot go on; the whole message.
pub fn run() -> Result<(), String> {
    logger::init();
    let get = |name: &str| std::env::var(name).ok();
    // Nothing else that another version has set may be understood.
    let own = std::env::current_exe().unwrap_or_default();
    let own = own.display().to_string();
    contract::check(get, &own).map_err(|mismatch| mismatch.to_string())?;
    let mut passed = Passed::take(get)?;
    if let Some(warning) = contract::other_release(get, &own) {
        log::warn!("{warning}");
    }
    if passed.environment.kind != Kind::Front {
        let kind = passed.environment.kind.name();
        return Err(format!(
            "could not start: {}={kind} (a defect of preforkd)",
            env::KIND
        ));
    }
    let settings = settings(passed.front.take())?;
    set_title(&passed);
    let record = passed.begin_record()?;
    passed.take_stderr_over()?;
    serve(passed, &Arc::new(settings), record)
}

/// The settings.
fn settings(file: Option<OwnedFd>) -> Result<Settings, String> {
    let read = || read_shared(file.ok_or(io::ErrorKind::NotFound)?);
    let json = read().map_err(could_not("read the settings"))?;
    Settings::parse(&json).map_err(|error| format!("could not read {}: {error}", env::FRONT_FD))
}

fn serve(
    passed: Passed,
    settings: &Arc<Settings>,
    record: Option<preforkd_worker::scoreboard::Record>,
) -> Result<(), String> {
    let (shared, counters) = (passed.shared()?, passed.counters()?);
    let purges = passed.purges()?;
    let clients = clients(&passed, settings, shared)?;
    let running = passed.running()?;
    let Passed {
        environment,
        mut listeners,
        access_log,
        check,
        stop,
        scoreboard,
        updates,
        wake,
        ..
    } = passed;
    let mut names = environment.listener_names.clone();
    names.resize(listeners.len(), String::new());
    let private = check.is_some();
    listeners.extend(check);
    scoreboard.iter().for_each(descriptors::own);
    let http = &settings.http;
    let layers = layer::Options::new(http, &environment, access_log)?;
    if settings.listeners.values().any(|listener| listener.tls) {
        tls::random::begin().map_err(could_not("get random numbers"))?;
    }
    let updates = Updates::begin(updates, settings, &names)?;
    let handshakes = counters.and_then(Counters::handshakes);
    let addresses = updates.listeners().counted(handshakes);
    let sites = Sites::new(settings, names).with_policies(updates.policies());
    let sites = Arc::new(sites);
    let proofs = updates.proofs();
    let crowds = crowds(settings, running);
    let mut front = Front::new(sites.clone(), settings, updates)?;
    if let Some(running) = running {
        front.share(running, wake);
    }
    if let Some(purges) = purges {
        front.cache(settings.cache_size, purges);
    }
    let place = environment.scoreboard_record.zip(counters);
    let place = place.and_then(|(record, counters)| counters.gauges(record));
    let gauges = place.map(|place| gauges(place, settings));
    gauges.into_iter().for_each(|gauges| front.tell(gauges));
    let visited = gauges.map(|gauges| Visited::new(gauges, settings));
    let table = match (sites.count(), shared) {
        (true, Some(memory)) => {
            let random = random().map_err(could_not("get random numbers"))?;
            Some(Table::new(memory, random))
        }
        _ => None,
    };
    let (pipe, signals) = signals().map_err(could_not("handle signals"))?;
    let gate = Gate::layer(&sites, table, purges).map_err(could_not("get random numbers"))?;
    let config = Config {
        limits: Arc::new(http.into()),
        listeners,
        private,
        front: FrontListeners::default(),
        proxy_protocol: http.proxy_protocol.then(|| http.trusted_proxies[..].into()),
        files: files(settings, &sites, proofs)?,
        layers: {
            let mut layers = layer::standard(layers);
            layers.extend(gate);
            layers.extend(counters.and_then(|counters| Counting::layer(counters, settings)));
            layers
        },
        stop: stop.into_iter().collect(),
        signals: Some(pipe),
    };
    let notifier = environment.notify_socket.as_deref().map(Notifier::new);
    let notifier = notifier
        .transpose()
        .map_err(could_not("make a socket to the master"))?;
    notifier.iter().for_each(descriptors::own);
    let mut board = Board::new(signals, record, notifier, None);
    board.ready();
    let shared = Shared::new(addresses, settings.http2)
        .limited(clients)
        .counted(visited)
        .crowded(crowds);
    serve_service_over::<Wire, _>(config, shared, front, board).map_err(could_not("go on serving"))
}

/// Where the worker says how it is.
fn gauges(place: &'static [AtomicU64], settings: &Settings) -> Gauges {
    let upstreams = settings.upstreams.keys().map(String::as_str);
    let sites = settings.sites.iter().map(|site| &*site.name);
    Gauges::begin(place, std::process::id(), upstreams, sites)
}

/// What counts the connections of clients, if there is a limit.
fn clients(
    passed: &Passed,
    settings: &Settings,
    shared: Option<&[AtomicU64]>,
) -> Result<Option<Clients>, String> {
    let (Some(most), Some(memory)) = (settings.max_connections_per_client, shared) else {
        return Ok(None);
    };
    let Some(open) = passed.connections()? else {
        log::warn!(
            "could not count the connections of clients: more than {PARTS} workers would do so (run fewer of them); \
             this worker takes them without max_connections_per_client"
        );
        return Ok(None);
    };
    let random = random().map_err(could_not("get random numbers"))?;
    let secret = rate::secret(memory, random);
    let proxies = &settings.http.trusted_proxies[..];
    Ok(Some(Clients::new(open, most, secret, proxies)))
}

/// What counts the connections of sites, if one has a limit.
fn crowds(settings: &Settings, running: Option<Running>) -> Option<Arc<Crowds>> {
    Crowds::new(settings, running).unwrap_or_else(|site| {
        log::warn!(
            "could not count the connections of site={site}: more than {PARTS} workers would do so, or this master has had more than \
             {PLACES} workers and sites to count for (run fewer workers, or restart preforkd); this worker takes connections without \
             max_connections of sites"
        );
        None
    })
}

/// Opens the folders.
fn files(settings: &Settings, sites: &Arc<Sites>, proofs: Arc<Proofs>) -> Result<Files, String> {
    let mappings = Sites::files(settings);
    if mappings.is_empty() {
        return Ok(Files::default());
    }
    let user = rustix::process::geteuid().as_raw().to_string();
    let what = format!("enter a folder of static files as user {user}");
    let chooser = Box::new(FilesOfSites::new(sites.clone(), proofs));
    Files::chosen(&mappings, chooser, user).map_err(could_not(what))
}

/// Two random numbers.
fn random() -> io::Result<(u64, u64)> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    let number = u128::from_ne_bytes(bytes);
    Ok(((number >> 64) as u64, number as u64))
}

/// A pipe to which a byte is written at SIGTERM and SIGINT. The stop order of the master comes over another one.
pub(crate) fn signals() -> io::Result<(OwnedFd, Signals)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    let come = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, come.clone())?;
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok((reader.into(), Signals(come)))
}

/// What stops the worker besides the master.
#[derive(Debug)]
pub(crate) struct Signals(Arc<AtomicBool>);

impl Life for Signals {
    fn interrupted(&mut self) -> bool {
        // Other signals interrupt a wait too, such as SIGCONT.
        self.0.load(Ordering::SeqCst)
    }
}

/// Names the process for ps(1); nothing depends on it.
fn set_title(passed: &Passed) {
    let environment = &passed.environment;
    let (app, generation) = (&environment.app, environment.generation);
    let slot = environment.slot.unwrap_or_default();
    // The name of the program is all that stands among the arguments.
    let _ = title::set(
        &format!("preforkd: {app}/{slot} gen {generation}"),
        Room::Arguments,
    );
    if let Ok(name) = std::ffi::CString::new(format!("{app}/{slot}")) {
        let _ = rustix::thread::set_name(&name);
    }
}

pub(crate) fn could_not<E: Into<io::Error>>(what: impl std::fmt::Display) -> impl Fn(E) -> String {
    move |error| format!("could not {what}: {}", error.into())
}
