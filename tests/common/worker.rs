//! A worker program: it accepts on the inherited socket, reports its events on standard output and does what it is asked for.
//! Its first argument, or the file `behaviour` in its folder, makes it misbehave from the start.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, SockaddrStorage, accept4, getsockname};
use signal_hook::consts::{SIGABRT, SIGTERM};

/// One line on standard output: "slot generation pid event".
fn tell(event: &str) {
    let of = |name| std::env::var(name).unwrap_or_else(|_| "-".into());
    let line = format!(
        "{} {} {} {event}\n",
        of("PREFORKD_SLOT"),
        of("PREFORKD_GENERATION"),
        std::process::id()
    );
    // One write, so that the lines of many workers do not mix.
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("standard output is open");
}

fn notify(state: &str) {
    let address = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET is set");
    let notifier = preforkd_worker::notify::Notifier::new(&address).expect("the address is one");
    notifier.send(state).expect("the master listens");
}

fn main() {
    let behaviour = std::fs::read_to_string("behaviour").ok();
    let behaviour = behaviour
        .or_else(|| std::env::args().nth(1))
        .unwrap_or_default();
    let behaviour = behaviour.trim();
    if let Some(address) = behaviour.strip_prefix("shout ") {
        return shout(address);
    }
    if let Some(address) = behaviour.strip_prefix("serve ") {
        return serve(address);
    }
    // A port of its own.
    let address = behaviour.strip_prefix("bind ");
    let _bound = address.map(|address| std::net::TcpListener::bind(address).expect("it is free"));
    let (mut term, mut abort) = (caught(SIGTERM), caught(SIGABRT));
    tell("started");
    if let Some(status) = behaviour.strip_prefix("exit ") {
        eprintln!("settings are missing");
        std::process::exit(status.parse().expect("a status"));
    }
    if behaviour == "background" {
        let _ = Command::new("setsid").args(["sleep", "1000"]).spawn();
        return;
    }
    if behaviour == "flood" {
        loop {
            eprintln!("settings are missing");
        }
    }
    let mute = behaviour == "mute";
    let check = std::env::var("LISTEN_FDNAMES").is_ok_and(|names| names.ends_with(":check"));
    let check = check.then(|| adopt(4));
    let listener = (!mute && std::env::var("LISTEN_FDS").is_ok_and(|n| n != "0")).then(listener);
    if !mute {
        notify("READY=1");
    }
    if behaviour == "loud" {
        std::thread::spawn(|| {
            let began = std::time::Instant::now();
            for number in 1.. {
                notify("WATCHDOG=1\nSTATUS=loud");
                if number == 4096 {
                    eprintln!("4096 messages took {} ms", began.elapsed().as_millis());
                }
            }
        });
    }
    loop {
        wait([
            Some(term.as_fd()),
            Some(abort.as_fd()),
            listener.as_ref().map(AsFd::as_fd),
            check.as_ref().map(AsFd::as_fd),
        ]);
        let probe = check
            .as_ref()
            .and_then(|check| accept4(check.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok());
        if let Some(probe) = probe {
            // SAFETY: the descriptor is new, and nothing else knows it.
            answer_probe(unsafe { File::from_raw_fd(probe) });
        }
        for (signal, status, name) in [(&mut term, 0, "term"), (&mut abort, 134, "abrt")] {
            if signal.read(&mut [0; 8]).is_ok() {
                tell(name);
                if behaviour != "ignore-signals" && address.is_none() {
                    std::process::exit(status);
                }
            }
        }
        let stream = listener
            .as_ref()
            .and_then(|listener| accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok());
        if let Some(stream) = stream {
            // SAFETY: the descriptor is new, and nothing else knows it.
            answer(unsafe { File::from_raw_fd(stream) });
        }
    }
}

/// Sends messages to an address as a process that is not a worker, and prints the result.
fn shout(address: &str) {
    let notifier = preforkd_worker::notify::Notifier::new(address).expect("an address");
    match notifier.send("READY=1\nSTOPPING=1") {
        Ok(()) => println!("sent"),
        Err(error) => println!("{:?}", error.kind()),
    }
}

/// A server that knows nothing of signals. What it answers to a request is said by who listens on `answers.sock`, piece by piece.
fn serve(address: &str) {
    let listener = std::net::TcpListener::bind(address).expect("nobody has it");
    notify("READY=1");
    for client in listener.incoming() {
        let mut client = client.expect("a connection");
        std::thread::spawn(move || {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                // The check only connects, and a kept connection ends.
                if !matches!(client.read(&mut byte), Ok(1)) {
                    return;
                }
                head.push(byte[0]);
            }
            let mut answers = UnixStream::connect("answers.sock").expect("the test listens");
            let mut piece = [0; 1024];
            while let Ok(length @ 1..) = answers.read(&mut piece) {
                client.write_all(&piece[..length]).expect("it is read");
            }
        });
    }
}

/// The first listener, non-blocking because another worker may be quicker to accept.
fn listener() -> OwnedFd {
    assert_eq!(
        std::env::var("LISTEN_PID"),
        Ok(std::process::id().to_string())
    );
    adopt(3)
}

/// A listener from the master, made non-blocking.
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the master passes listeners from descriptor 3 on, and each is taken once.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it is a socket");
    socket
}

/// A socket that becomes readable when the signal arrives.
fn caught(signal: i32) -> UnixStream {
    let (read, write) = UnixStream::pair().expect("a pair");
    read.set_nonblocking(true).expect("it is a socket");
    signal_hook::low_level::pipe::register(signal, write).expect("the signal can be caught");
    read
}

/// Waits until one of these is readable.
fn wait(sources: [Option<BorrowedFd>; 4]) {
    let sources = sources.into_iter().flatten();
    let mut sources: Vec<_> = sources
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    // Interrupted by the signal itself, whose socket is readable now.
    let _ = poll(&mut sources, PollTimeout::NONE);
}

/// The answer is good if a file of this name exists.
fn answer_probe(mut stream: File) {
    let reader = BufReader::new(stream.try_clone().expect("a copy"));
    let mut head = reader.lines().map_while(Result::ok);
    assert!(head.any(|line| line.is_empty()), "a whole request");
    stream.write_all(health().as_bytes()).expect("it listens");
}

/// The answer to a check.
fn health() -> String {
    let status = match std::fs::exists("healthy") {
        Ok(true) => "200 OK",
        _ => "503 Service Unavailable",
    };
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

/// An answer with the target and the fields of the request.
fn echo(target: &str, reader: impl BufRead) -> String {
    let head = reader.lines().map_while(Result::ok);
    let fields: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
    let body = format!("{target}\n{}\n", fields.join("\n"));
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Starts a process that ignores SIGTERM: in a process `group` or a `session` of its own, or as a `stranger`, who has no variable of
/// the worker either.
fn start_deaf(how: &str) -> std::process::Child {
    let script = "trap '' TERM; echo; exec sleep 1000";
    let mut command = match how {
        "session" | "stranger" => Command::new("setsid"),
        _ => Command::new("env"),
    };
    command.args(["/bin/sh", "-c", script]);
    match how {
        "group" => drop(command.process_group(0)),
        "stranger" => drop(command.env_remove("LISTEN_PID")),
        _ => {}
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    // Now it is deaf.
    let mut line = [0];
    let read = child.stdout.as_mut().expect("a pipe").read(&mut line);
    assert_eq!(read.ok(), Some(1));
    child
}

/// Runs a shell with what follows the first word of the line, and tells what it has written, in one line.
fn run(line: &str) -> String {
    let (_, script) = line.trim().split_once(' ').expect("a script");
    let ran = Command::new("/bin/sh").args(["-c", script]).output();
    let ran = match ran {
        Ok(ran) => [ran.stdout, ran.stderr].concat(),
        Err(error) => error.to_string().into_bytes(),
    };
    String::from_utf8_lossy(&ran).trim().replace('\n', ";")
}

/// One line in, one line out.
fn answer(mut stream: File) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let reply = match words[..] {
        ["GET", target, _] if target.contains("/echo") => echo(target, reader),
        ["GET", ..] => health(),
        ["exit", status] => std::process::exit(status.parse().expect("a status")),
        ["env", name] => std::env::var(name).unwrap_or_else(|_| "unset".into()),
        ["link", name] => {
            std::fs::read_link(name).map_or_else(|e| e.to_string(), |p| p.display().to_string())
        }
        ["file", name] => std::fs::read_to_string(name)
            .unwrap_or_else(|e| e.to_string())
            .replace(['\0', '\n'], ";"),
        ["descriptors"] => {
            let all = std::fs::read_dir("/proc/self/fd")
                .expect("/proc is mounted")
                .flatten();
            let mut all: Vec<_> = all
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            all.sort();
            all.join(" ")
        }
        ["no-delay"] => {
            let value =
                nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::TcpNoDelay);
            format!("{value:?}")
        }
        ["arguments"] => std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        ["sh", ..] => run(&line),
        ["connect", port] => std::net::TcpStream::connect(format!("127.0.0.1:{port}"))
            .map_or_else(|error| error.to_string(), |_| "connected".into()),
        ["bind", port] => std::net::TcpListener::bind(format!("127.0.0.1:{port}"))
            .map_or_else(|error| error.to_string(), |_| "bound".into()),
        ["start", how] => start_deaf(how).id().to_string(),
        ["socket", number] => {
            let number = number.parse().expect("a descriptor");
            let address = getsockname::<SockaddrStorage>(number).expect("a socket");
            address.to_string()
        }
        ["remove", name] => {
            std::fs::remove_file(name).map_or_else(|e| e.to_string(), |()| "removed".into())
        }
        ["say", word] => {
            tell(word);
            "said".into()
        }
        ["stopping"] => {
            notify("STOPPING=1");
            "stopping".into()
        }
        ["hang"] => {
            tell("hangs");
            loop {
                std::thread::park();
            }
        }
        _ => std::process::id().to_string(),
    };
    // The client may have closed the connection, which is no fault.
    let _ = stream.write_all(format!("{reply}\n").as_bytes());
}
