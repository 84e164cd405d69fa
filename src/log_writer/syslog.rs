//! Sends lines to a syslog server: over a Unix datagram socket in the form of syslog(3), over UDP in that of RFC 5424.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;

use crate::plan::log_target::Syslog;

/// The maximum length of a line. A longer one is split.
const MAX_LINE: usize = 8192;
/// What every server takes: RFC 3164 section 4.1.
const SMALL: usize = 1024;

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

/// A connection to a syslog server.
pub struct Sender {
    socket: Socket,
    priority: u8,
    tag: String,
    host: String,
    /// The beginning of a line that has not ended yet.
    unfinished: Vec<u8>,
}

impl Sender {
    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// As connect(2).
    pub fn unix(path: &Path, syslog: &Syslog) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self::new(Socket::Unix(socket), syslog))
    }

    /// Looks up a host, and connects to it. May wait for a name service.
    ///
    /// # Errors
    /// The name has no address, or none that can be reached.
    pub fn udp(host: &str, port: u16, syslog: &Syslog) -> io::Result<Self> {
        let mut result = Err(io::Error::other("the name of the host has no address"));
        for address in (host, port).to_socket_addrs()? {
            let any = match address {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            result = UdpSocket::bind(any).and_then(|socket| {
                socket.connect(address)?;
                Ok(Self::new(Socket::Udp(socket), syslog))
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn new(socket: Socket, syslog: &Syslog) -> Self {
        let host = nix::sys::utsname::uname();
        let host = host.map(|names| names.nodename().to_string_lossy().into_owned());
        Self {
            socket,
            priority: syslog.priority(),
            tag: syslog.tag.clone(),
            host: host.unwrap_or_default(),
            unfinished: Vec::new(),
        }
    }

    /// Sends each line as a message. Removes from `rest` what was sent, and what is kept until its line ends.
    ///
    /// # Errors
    /// As send(2). The line that was not sent is still in `rest`.
    pub fn write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let room = MAX_LINE.saturating_sub(self.unfinished.len());
            let piece = &rest[..rest.len().min(room)];
            let Some(length) = piece.iter().position(|&byte| byte == b'\n') else {
                self.unfinished.extend_from_slice(piece);
                *rest = &rest[piece.len()..];
                if self.unfinished.len() < MAX_LINE {
                    return Ok(());
                }
                let line = std::mem::take(&mut self.unfinished);
                self.send_line(&line)?;
                continue;
            };
            match self.unfinished.is_empty() {
                true => self.send_line(&piece[..length])?,
                false => {
                    let line = [&self.unfinished[..], &piece[..length]].concat();
                    self.send_line(&line)?;
                    self.unfinished.clear();
                }
            }
            *rest = &rest[length + 1..];
        }
        Ok(())
    }

    /// What was kept, for the sender that takes the place of this one.
    pub fn take_over(&mut self, before: &mut Self) {
        self.unfinished = std::mem::take(&mut before.unfinished);
    }

    /// Sends what is kept.
    ///
    /// # Errors
    /// As send(2).
    pub fn finish(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.unfinished) {
            line if line.is_empty() => Ok(()),
            line => self.send_line(&line),
        }
    }

    /// Sends one line; an empty one is no message.
    fn send_line(&self, line: &[u8]) -> io::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        let mut message = self.head(SystemTime::now()).into_bytes();
        for &byte in line {
            match byte {
                0..=8 | 10..=31 | 127 => {
                    message.extend_from_slice(format!("\\x{byte:02X}").as_bytes());
                }
                _ => message.push(byte),
            }
        }
        match self.send(&message) {
            // An earlier datagram was refused (udp(7)); nobody tells which, and this one was not sent yet.
            Err(error) if self.is_udp() && error.kind() == io::ErrorKind::ConnectionRefused => {
                self.send(&message)
            }
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                message.truncate(SMALL);
                self.send(&message)
            }
            result => result,
        }
    }

    fn is_udp(&self) -> bool {
        matches!(self.socket, Socket::Udp(_))
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        loop {
            let sent = match &self.socket {
                Socket::Unix(socket) => socket.send(message),
                Socket::Udp(socket) => socket.send(message),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// What stands in front of each line.
    fn head(&self, now: SystemTime) -> String {
        let Self {
            priority,
            tag,
            host,
            ..
        } = self;
        let pid = std::process::id();
        let time = humantime::format_rfc3339_millis(now).to_string();
        if self.is_udp() {
            return format!("<{priority}>1 {time} {host} {tag} {pid} - - ");
        }
        // Servers on the same host replace the time by their own, and expect no name of a host.
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let number = |at: std::ops::Range<usize>| time[at].parse::<usize>().unwrap_or(1);
        let (month, day) = (MONTHS[number(5..7) - 1], number(8..10));
        let clock = &time[11..19];
        format!("<{priority}>{month} {day:2} {clock} {tag}[{pid}]: ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::log_target::LogTarget;

    fn syslog() -> Syslog {
        match LogTarget::parse("syslog:".as_ref()) {
            Ok(LogTarget::Syslog(syslog)) => syslog,
            other => panic!("{other:?}"),
        }
    }

    fn next(server: &UnixDatagram) -> String {
        let mut buffer = [0; 2 * MAX_LINE];
        let length = server.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// A server, and what is connected to it.
    fn connected() -> (tempfile::TempDir, UnixDatagram, Sender) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let server = UnixDatagram::bind(&path).expect("room");
        let sender = Sender::unix(&path, &syslog()).expect("it is there");
        (folder, server, sender)
    }

    #[test]
    fn each_line_is_a_message_however_it_is_split() {
        let (_folder, server, mut sender) = connected();
        for mut piece in [&b"one\ntw"[..], b"o", b"\n\nthr\x1bee\nfo", b"ur\xff"] {
            sender.write(&mut piece).expect("room");
        }
        sender.finish().expect("room");
        for line in ["one", "two", "thr\\x1Bee", "four\u{fffd}"] {
            let message = next(&server);
            let (head, rest) = message.split_once("]: ").expect("a head");
            assert_eq!(rest, line);
            assert!(head.starts_with("<190>"), "{head}");
        }
    }

    #[test]
    fn a_line_without_end_is_sent_in_pieces() {
        let (_folder, server, mut sender) = connected();
        let line = vec![b'x'; MAX_LINE + 10];
        sender.write(&mut &line[..]).expect("room");
        sender.write(&mut &b"\n"[..]).expect("room");
        let lengths = [next(&server), next(&server)].map(|text| text.matches('x').count());
        assert_eq!(lengths, [MAX_LINE, 10]);
    }

    #[test]
    fn the_heads_are_those_of_syslog_and_of_rfc_5424() {
        let (_folder, _server, mut sender) = connected();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_780_294_084_005);
        let pid = std::process::id();
        assert_eq!(
            sender.head(time),
            format!("<190>Jun  1 06:08:04 preforkd[{pid}]: ")
        );
        sender.socket = Socket::Udp(UdpSocket::bind("127.0.0.1:0").expect("a port"));
        sender.host = "host".into();
        assert_eq!(
            sender.head(time),
            format!("<190>1 2026-06-01T06:08:04.005Z host preforkd {pid} - - ")
        );
    }

    #[test]
    fn a_host_that_refuses_datagrams_stops_nothing() {
        let port = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr();
        let port = port.expect("an address").port();
        let mut sender = Sender::udp("127.0.0.1", port, &syslog()).expect("nothing is sent yet");
        for _ in 0..5 {
            sender
                .write(&mut &b"line\n"[..])
                .expect("it is not waited for");
        }
    }
}
