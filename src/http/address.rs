//! The address of the client: the peer, or behind trusted proxies the rightmost hop of `X-Forwarded-For` that is not
//! one of them. What a client writes into that header itself is never believed.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// Hops of `X-Forwarded-For` looked at; a longer chain counts as untrusted from there.
const HOPS_MAX: usize = 32;

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

    /// Who sent a request that arrived from `peer` with `headers`.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let mut hops: Vec<&str> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
        hops.reverse();
        let mut client = peer;
        for hop in hops.into_iter().take(HOPS_MAX) {
            let Ok(address) = hop.parse::<IpAddr>() else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }

    fn contains(&self, address: IpAddr) -> bool {
        let value = as_bits(address);
        self.0.iter().any(|network| mask(value, network.bits) == network.base)
    }
}

/// The part of an address that one customer of a provider usually has to themselves: all of IPv4, /64 of IPv6. Rates
/// are counted by it.
pub fn rate_key(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.to_string(),
            None => std::net::Ipv6Addr::from(mask(u128::from(address), 64)).to_string(),
        },
    }
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

    use super::{TrustedProxies, rate_key};

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
