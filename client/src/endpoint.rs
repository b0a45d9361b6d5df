//! Network addresses as people write them: `host:port`, `[::1]:port`.

use crate::ClientError;
use ottla_proto::v1;
use std::fmt;
use std::str::FromStr;

/// Host name or address, and port, of a node's gRPC service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// From its parts. An IPv6 address is given without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Host name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From the wire; `None` if the port is none.
    pub(crate) fn from_wire(endpoint: &v1::Endpoint) -> Option<Self> {
        let port = u16::try_from(endpoint.port).ok().filter(|port| *port > 0)?;
        Some(Self::new(endpoint.host.clone(), port))
    }

    /// Parses a comma-separated list.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] if it is empty or one address is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ClientError> {
        let list: Vec<Self> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if list.is_empty() {
            return Err(ClientError::InvalidArgument("no address given".to_owned()));
        }
        Ok(list)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ClientError::InvalidArgument(format!("{text:?} is not of the form HOST:PORT"));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets, one cannot tell the port of an IPv6 address from its last group.
        if port == 0 || host.is_empty() || (bracketed.is_none() && host.contains(':')) {
            return Err(bad());
        }
        Ok(Self::new(bracketed.unwrap_or(host), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["127.0.0.1:7401", "node-1.example:7401", "[::1]:7401"] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), text);
        }
        assert_eq!("[::1]:1".parse::<HostPort>().expect("IPv6").host(), "::1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "localhost", "localhost:", ":7401", "localhost:0", "a:70000", "::1:7401"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn lists_ignore_spaces_and_empty_parts() {
        let list = HostPort::parse_list(" a:1, b:2,").expect("two addresses");
        assert_eq!(list, [HostPort::new("a", 1), HostPort::new("b", 2)]);
        assert!(HostPort::parse_list(" ,").is_err());
    }
}
