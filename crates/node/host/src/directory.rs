//! Who belongs to a cluster, as a peer tells a node that is to join and knows only addresses.
//!
//! Format version 1: byte 1, the cluster (8 bytes), the protocol (a byte), a count, and per member
//! its id (8 bytes), name, peer URLs, client URLs (each a count and strings), 1 if it is a learner.

use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{ClusterId, NodeId};
use quorate_keyspace::command::Member;
use quorate_replicated_log::Protocol;
use quorate_transport::{TransportError, inquire, peer_address};

const VERSION: u8 = 1;
const MAX_MEMBERS: u64 = 1_024;
const MAX_URLS: u64 = 64;
const MAX_TEXT_BYTES: u64 = 4_096;

/// A cluster and its members.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Directory {
    /// The cluster.
    pub cluster: ClusterId,
    /// How its log is replicated.
    pub protocol: Protocol,
    /// Its members, as the node that was asked knows them.
    pub members: Vec<Member>,
}

impl Directory {
    /// The bytes of an answer.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION).u64(self.cluster.0).u8(self.protocol.code());
        w.varint(self.members.len() as u64);
        for member in &self.members {
            w.u64(member.id.0).bytes(member.name.as_bytes());
            for urls in [&member.peer_urls, &member.client_urls] {
                w.varint(urls.len() as u64);
                urls.iter().for_each(|url| {
                    w.bytes(url.as_bytes());
                });
            }
            w.bool(member.learner);
        }
        w.into_bytes()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`DecodeError`], if it makes no sense.
    pub fn decode(bytes: Bytes) -> Result<Directory, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { field: "directory version", value: version.into() });
        }
        let cluster = ClusterId(r.u64()?);
        let code = r.u8()?;
        let unknown = DecodeError::Unknown { field: "protocol", value: code.into() };
        let protocol = Protocol::of_code(code).ok_or(unknown)?;
        let n = r.count(MAX_MEMBERS, 12)?;
        let members = (0..n)
            .map(|_| {
                Ok(Member {
                    id: NodeId(r.u64()?),
                    name: text(&mut r)?,
                    peer_urls: texts(&mut r)?,
                    client_urls: texts(&mut r)?,
                    learner: r.bool("learner")?,
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        r.finish()?;
        Ok(Directory { cluster, protocol, members })
    }

    /// Asks the nodes at `peer_urls`, one after the other, until one answers.
    ///
    /// # Errors
    /// What the last one failed with.
    pub async fn discover(peer_urls: &[String]) -> Result<Directory, TransportError> {
        let mut last = TransportError::Address {
            address: String::new(),
            reason: "no peer of the cluster to be joined is known",
        };
        for url in peer_urls {
            let address = peer_address(url)?;
            match inquire(&address).await {
                Ok(answer) => return Ok(Directory::decode(answer)?),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The member whose peer URLs are these, in any order.
    pub fn find(&self, peer_urls: &[String]) -> Option<&Member> {
        let same = |member: &&Member| {
            member.peer_urls.len() == peer_urls.len()
                && member.peer_urls.iter().all(|url| peer_urls.contains(url))
        };
        self.members.iter().find(same)
    }
}

fn text(r: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes(MAX_TEXT_BYTES)?).into_owned())
}

fn texts(r: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let n = r.count(MAX_URLS, 1)?;
    (0..n).map(|_| text(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_version_1() {
        let member = Member {
            id: NodeId(2),
            name: "n".into(),
            peer_urls: vec!["p".into()],
            client_urls: vec![],
            learner: true,
        };
        let (cluster, protocol) = (ClusterId(1), Protocol::Paxos);
        let directory = Directory { cluster, protocol, members: vec![member.clone()] };
        let bytes = directory.encode();
        let golden = [
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1][..],
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, b'n', 1, 1, b'p', 0, 1],
        ];
        assert_eq!(bytes, golden.concat());
        assert_eq!(Directory::decode(bytes.clone()), Ok(directory.clone()));
        assert_eq!(directory.find(&["p".into()]), Some(&member));
        assert_eq!(directory.find(&["q".into()]), None);
        for cut in 0..bytes.len() {
            assert!(Directory::decode(bytes.slice(..cut)).is_err());
        }
    }
}
