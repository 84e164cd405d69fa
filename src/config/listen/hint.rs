//! What to write instead of something that is not an address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const USUAL: &str =
    "write \"127.0.0.1:8000\", \"[::1]:8000\", \"unix:/run/web.sock\" or \"fd:NAME\"";
const PORTS: &str = "a port is a number from 1 to 65535";

/// What to write instead of `text`, which is not an address.
pub(super) fn hint(text: &str) -> String {
    let bare = text.trim();
    if bare != text && is_address(bare) {
        return format!("write \"{bare}\", without spaces");
    }
    if let Some((scheme, rest)) = bare.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return match (scheme, is_address(rest)) {
            ("http" | "tcp", true) => format!("write \"{rest}\""),
            ("https", true) => {
                format!("write \"{rest}\"; TLS is for a server in front of preforkd")
            }
            _ => USUAL.into(),
        };
    }
    if bare.starts_with(['/', '.']) || bare.ends_with(".sock") {
        return format!("write \"unix:{bare}\"");
    }
    if let Some(host) = host(bare) {
        return format!("the port is missing; write for example \"{host}:8000\"");
    }
    match bare.rsplit_once(':') {
        Some((host, port)) => with_port(host, port),
        None if bare.parse::<u64>().is_ok() && !is_port(bare) => {
            format!("{PORTS}, not \"{bare}\"")
        }
        None if is_port(bare) => {
            format!(
                "write \"127.0.0.1:{bare}\", or \"0.0.0.0:{bare}\" for every IPv4 address of this host"
            )
        }
        None => USUAL.into(),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The host, as it is written before a port, if the text is one without a port.
fn host(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner.unwrap_or(text).parse() {
        Ok(IpAddr::V4(host)) if inner.is_none() => Some(host.to_string()),
        // "::1:8000" is an address without a port too; more likely it is one with a port.
        Ok(IpAddr::V6(host)) if inner.is_some() || !ends_with_a_port(text) => {
            Some(format!("[{host}]"))
        }
        _ if text == "localhost" => Some("127.0.0.1".into()),
        _ => None,
    }
}

fn ends_with_a_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| host.parse::<Ipv6Addr>().is_ok() && is_port(port))
}

fn with_port(host: &str, port: &str) -> String {
    if !is_port(port) {
        return format!("{PORTS}, not \"{port}\"");
    }
    let numbers = host.split('.').filter(|part| part.parse::<u32>().is_ok());
    match host {
        "" | "*" | "0" => format!("write \"0.0.0.0:{port}\" for every IPv4 address of this host"),
        "localhost" => format!("write \"127.0.0.1:{port}\""),
        host if host.parse::<Ipv6Addr>().is_ok() => format!("write \"[{host}]:{port}\""),
        host if host.starts_with('[') && host.contains('%') => format!(
            "after \"%\" stands the number of an interface, as `ip link` shows it: \"[fe80::1%2]:{port}\""
        ),
        host if host.contains(char::is_whitespace) => USUAL.into(),
        host if numbers.count() == 4 => {
            format!("{host} is no IPv4 address: each of its numbers is at most 255")
        }
        host if host.contains(|c: char| c.is_alphabetic()) && !host.contains(['[', ':']) => {
            format!(
                "preforkd looks up no names; write the address of {host}, for example \"0.0.0.0:{port}\" for every IPv4 address of this host"
            )
        }
        _ => USUAL.into(),
    }
}
