//! The address of the client: the peer, or behind trusted proxies the rightmost hop that is not one of them. What a
//! client writes into those headers itself is never believed.
//!
//! Hops are read from `X-Forwarded-For`, or where it is absent from `Forwarded` (RFC 7239). A proxy that sets one of
//! them must take the other away; most do for theirs alone, so `X-Forwarded-For` comes first.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::limits::network_of;

/// Hops looked at; a longer chain counts as untrusted from there.
const HOPS_MAX: usize = 32;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Headers that a proxy adds. A request that has one of them did not come from its peer alone.
const BY_PROXIES: [HeaderName; 6] = [
    FORWARDED_FOR,
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    base: u128,
    /// Leading bits that must agree, of 128; IPv4 is mapped into `::ffff:0:0/96`.
    bits: u32,
}

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Reads entries such as `10.0.0.0/8`, `::1` or `fd00::/8`.
    ///
    /// # Errors
    /// The first entry that is none.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        let networks = entries.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
        networks
            .map(|entry| parse_network(entry).ok_or_else(|| format!("HAUS_TRUSTED_PROXIES: {entry:?} is no network")))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Who sent a request that arrived from `peer` with `headers`; an IPv4 address is one, however it was written.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        for hop in hops(headers).into_iter().rev().take(HOPS_MAX) {
            let Some(address) = hop else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }

    /// Whether connections of this peer are those of many clients.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.contains(peer.to_canonical())
    }

    fn contains(&self, address: IpAddr) -> bool {
        let value = as_bits(address);
        self.0.iter().any(|network| mask(value, network.bits) == network.base)
    }
}

/// Whether a request came straight from this machine: from a loopback peer, through no proxy.
pub fn is_direct_loopback(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback() && BY_PROXIES.iter().all(|name| !headers.contains_key(name))
}

/// The text of [`network_of`]: what rates are counted by.
pub fn rate_key(address: IpAddr) -> String {
    network_of(address).to_string()
}

/// The hops of a request, the nearest last; `None` for one that is no address.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name: HeaderName| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    if headers.contains_key(FORWARDED_FOR) {
        return lines(FORWARDED_FOR).flat_map(|line| line.split(',')).map(hop).collect();
    }
    lines(header::FORWARDED).flat_map(split_elements).map(|element| forwarded_for(element).and_then(hop)).collect()
}

/// Elements of a `Forwarded` line; commas inside quotes separate nothing.
fn split_elements(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .collect()
}

/// The value of `for=` in one element.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// An address as proxies write it: bare, with a port, in brackets, in quotes.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse::<IpAddr>().ok().or_else(bare).or_else(with_port).map(|address| address.to_canonical())
}

fn parse_network(entry: &str) -> Option<Network> {
    let (address, bits) = match entry.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (entry, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    if bits > width {
        return None;
    }
    let bits = bits + 128 - width;
    Some(Network { base: mask(as_bits(address), bits), bits })
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn mask(value: u128, bits: u32) -> u128 {
    value & u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::http::HeaderMap;

    use super::{TrustedProxies, is_direct_loopback, rate_key};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> IpAddr {
        let entries: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let proxies = TrustedProxies::parse(&entries).unwrap_or_else(|e| panic!("{e}"));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap_or_else(|e| panic!("{e}")));
        }
        proxies.client_address(ip(peer), &headers)
    }

    #[test]
    fn only_trusted_hops_are_believed() {
        assert_eq!(client(&[], "192.0.2.1", &["198.51.100.7"]), ip("192.0.2.1"));
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &["198.51.100.7"]), ip("192.0.2.1"));
        assert_eq!(client(&["10.0.0.0/8"], "10.1.2.3", &["198.51.100.7"]), ip("198.51.100.7"));
        assert_eq!(client(&["10.0.0.0/8"], "10.1.2.3", &["203.0.113.9, 198.51.100.7, 10.9.9.9"]), ip("198.51.100.7"));
        assert_eq!(client(&["10.0.0.0/8"], "10.1.2.3", &["1.2.3.4, nonsense"]), ip("10.1.2.3"));
        assert_eq!(client(&["::1"], "::1", &["2001:db8::5"]), ip("2001:db8::5"));
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.1.2.3", &["198.51.100.7"]), ip("198.51.100.7"));
        assert_eq!(client(&["0.0.0.0/0"], "10.1.2.3", &["1.1.1.1", "2.2.2.2"]), ip("1.1.1.1"));
    }

    fn by_header(name: &'static str, lines: &[&str]) -> IpAddr {
        let proxies = TrustedProxies::parse(&["10.0.0.0/8".to_owned()]).unwrap_or_else(|e| panic!("{e}"));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap_or_else(|e| panic!("{e}")));
        }
        proxies.client_address(ip("10.0.0.1"), &headers)
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (line, client) in [
            ("203.0.113.5:5001", "203.0.113.5"),
            ("[2001:db8::1]:9", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("\"[2001:db8::1]:9\"", "2001:db8::1"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("1.1.1.1, 203.0.113.5:80 , 10.0.0.9:1", "203.0.113.5"),
            ("203.0.113.5:", "10.0.0.1"),
            ("203.0.113.5:x", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
        ] {
            assert_eq!(by_header("x-forwarded-for", &[line]), ip(client), "{line}");
        }
        assert_eq!(by_header("x-forwarded-for", &["1.1.1.1", "203.0.113.5", "10.2.2.2"]), ip("203.0.113.5"));
        for (line, client) in [
            ("for=203.0.113.5", "203.0.113.5"),
            ("For=\"203.0.113.5:47011\";proto=https", "203.0.113.5"),
            ("proto=http;by=10.0.0.2;for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=1.1.1.1, for=203.0.113.5, for=10.0.0.3", "203.0.113.5"),
            ("for=\"1.1.1.1,2.2.2.2\"", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            assert_eq!(by_header("forwarded", &[line]), ip(client), "{line}");
        }
        assert_eq!(by_header("forwarded", &["for=1.1.1.1", "for=203.0.113.5"]), ip("203.0.113.5"));
    }

    #[test]
    fn only_a_direct_loopback_peer_is_an_operator() {
        assert!(is_direct_loopback(ip("127.0.0.1"), &HeaderMap::new()));
        assert!(
            is_direct_loopback(ip("::ffff:127.0.0.1"), &HeaderMap::new())
                && is_direct_loopback(ip("::1"), &HeaderMap::new())
        );
        assert!(!is_direct_loopback(ip("192.0.2.1"), &HeaderMap::new()));
        for name in ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto", "x-forwarded-host"] {
            let mut headers = HeaderMap::new();
            headers.insert(name, "127.0.0.1".parse().unwrap_or_else(|e| panic!("{e}")));
            assert!(!is_direct_loopback(ip("127.0.0.1"), &headers), "{name}");
        }
    }

    #[test]
    fn bad_networks_are_named() {
        for bad in ["10.0.0.0/33", "ten", "::/129", "1.2.3.4/x"] {
            assert!(TrustedProxies::parse(&[bad.to_owned()]).is_err_and(|e| e.contains(bad)), "{bad}");
        }
    }

    #[test]
    fn rates_of_ipv6_count_by_network() {
        assert_eq!(rate_key(ip("2001:db8::1:2:3:4")), rate_key(ip("2001:db8::9")));
        assert_ne!(rate_key(ip("2001:db8:0:1::9")), rate_key(ip("2001:db8::9")));
        assert_eq!(rate_key(ip("::ffff:1.2.3.4")), "1.2.3.4");
    }
}
