//! A front with one site, whose upstream a test plays.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use preforkd_front::crowds::Crowds;
use preforkd_front::h2::{Shared, Wire};
use preforkd_front::layers::gate::Gate;
use preforkd_front::layers::rate::Table;
use preforkd_front::service::Front;
use preforkd_front::sites::{FilesOfSites, Sites};
use preforkd_front::tls::Listeners;
use preforkd_front::updates::Updates;
use preforkd_front::visits::Visited;
use preforkd_http::{Config, Files, FrontListeners, layer, serve_service_over};
use preforkd_worker::front::{self, Listener, Route, Settings, Site, Target};
use preforkd_worker::gauges::{self, Gauges};
use preforkd_worker::layers::Layers;
use preforkd_worker::purges::{self, Purges};
use preforkd_worker::running::{self, Running};
use preforkd_worker::settings::Http;
use rustix::event::{EventfdFlags, eventfd};

use crate::common::{GUARD, Peer, Upstream, upstream};

/// A site with these layers, all requests of which an upstream answers, until it is dropped.
pub struct Served {
    pub address: SocketAddr,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    pub upstream: Upstream,
    pub purges: Purges,
    gauges: &'static [AtomicU64],
}

fn http() -> Http {
    let long = Duration::from_secs(60);
    Http {
        request_id: false,
        access_format: "combined".into(),
        trusted_proxies: Vec::new(),
        forwarded_fields: None,
        proxy_protocol: false,
        max_head: 32 << 10,
        max_headers: 100,
        max_body: 1 << 20,
        body_in_memory: 1 << 10,
        response_in_memory: 1 << 10,
        response_in_file: 1 << 10,
        max_buffered: 1 << 20,
        header_timeout: long,
        body_timeout: long,
        write_timeout: long,
        keepalive_timeout: long,
        graceful_timeout: Duration::from_secs(5),
        max_connections: 100,
    }
}

pub fn route(path: &str, target: Target, layers: Layers) -> Route {
    Route {
        path: path.into(),
        methods: Vec::new(),
        headers: Default::default(),
        strip_prefix: false,
        rewrite: None,
        stream: false,
        target,
        layers,
    }
}

pub fn to_app() -> Target {
    Target::Upstream("app".into())
}

/// Serves the site with these layers, and these routes besides the one to the app.
pub fn serve(layers: Layers, routes: Vec<Route>) -> Served {
    serve_with(layers, routes, |_| {})
}

/// The same, with other settings.
pub fn serve_with(
    layers: Layers,
    mut routes: Vec<Route>,
    change: impl FnOnce(&mut Settings),
) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (upstream, at) = upstream();
    routes.push(route("/", to_app(), Layers::default()));
    let mut settings = Settings {
        http: http(),
        listeners: [(
            "0".to_owned(),
            Listener {
                address: address.to_string(),
                tls: false,
            },
        )]
        .into(),
        sites: vec![Site {
            name: "s".into(),
            listeners: vec!["0".into()],
            hosts: Vec::new(),
            routes,
            layers,
        }],
        upstreams: [(
            "app".to_owned(),
            front::Upstream {
                addresses: vec![at.to_string()],
                is_told: false,
                speech: front::Speech::default(),
                queue_length: 10,
                queue_timeout: GUARD,
                connect_timeout: GUARD,
                response_timeout: GUARD,
                idle_timeout: GUARD,
                max_fails: 0,
                fail_timeout: GUARD,
            },
        )]
        .into(),
        upgrade_timeout: GUARD,
        http2: true,
        cache_size: 1 << 20,
        max_connections_per_client: None,
    };
    change(&mut settings);
    let sites = Arc::new(Sites::new(&settings, vec!["0".into()]));
    let mut layers = layer::standard(layer::Options::default());
    let words: Vec<AtomicU64> = (0..1024).map(|_| AtomicU64::new(0)).collect();
    let table = Table::new(words.leak(), (7, 9));
    let words: Vec<AtomicU64> = (0..purges::WORDS).map(|_| AtomicU64::new(0)).collect();
    let purges = Purges::new(words.leak());
    layers.extend(Gate::layer(&sites, Some(table), Some(purges)).unwrap());
    let files = Sites::files(&settings);
    let files = match files.is_empty() {
        true => Files::default(),
        false => {
            let chooser = Box::new(FilesOfSites::new(sites.clone(), Arc::default()));
            Files::chosen(&files, chooser, "me".into()).unwrap()
        }
    };
    let config = Config {
        limits: Arc::new((&settings.http).into()),
        listeners: vec![listener.into()],
        files,
        private: false,
        front: FrontListeners::default(),
        proxy_protocol: None,
        layers,
        stop: vec![stop.as_fd().try_clone_to_owned().unwrap()],
        signals: None,
    };
    let words: Vec<AtomicU64> = (0..gauges::WORKER_WORDS)
        .map(|_| AtomicU64::new(0))
        .collect();
    let words: &'static [AtomicU64] = words.leak();
    let place = Gauges::begin(words, 1, [].into_iter(), ["s"].into_iter());
    let visited = Visited::new(place, &settings);
    let running = match settings.sites[0].layers.max_connections {
        Some(_) => {
            let words: Vec<_> = (0..running::WORDS).map(|_| AtomicU64::new(0)).collect();
            Running::begin(words.leak(), 0, 1)
        }
        None => None,
    };
    let crowds = Crowds::new(&settings, running).unwrap();
    let settings = Arc::new(settings);
    let mut front = Front::new(sites, &settings, Updates::none(&settings)).unwrap();
    front.cache(settings.cache_size, purges);
    let thread = thread::spawn(move || {
        let shared = Shared::new(Listeners::default(), true);
        let shared = shared.counted(Some(visited)).crowded(crowds);
        serve_service_over::<Wire, _>(config, shared, front, ()).unwrap();
    });
    Served {
        address,
        stop,
        thread: Some(thread),
        upstream,
        purges,
        gauges: words,
    }
}

impl Served {
    /// The open connections of the site.
    pub fn connections(&self) -> u64 {
        let words = self.gauges.iter();
        let words: Vec<_> = words.map(|word| word.load(Ordering::Relaxed)).collect();
        gauges::connections(&words, 1, "s")
    }

    pub fn send(&self, text: &str) -> Peer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(GUARD)).unwrap();
        let mut peer = Peer::of(stream);
        peer.write(text);
        peer
    }

    pub fn get(&self, path: &str, fields: &str) -> Peer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).unwrap();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server has panicked");
        }
    }
}

/// The value of a field.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (other, value) = line.split_once(": ")?;
        other.eq_ignore_ascii_case(name).then_some(value)
    })
}
