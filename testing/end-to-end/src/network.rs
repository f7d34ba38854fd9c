//! A network between processes that can be cut, in each direction of each pair by itself.
//!
//! Whoever is to be cut off is reached through a *gate*: a port that hands everything on. A cut
//! link holds back what is sent, as a network does that loses it again and again; what is mended
//! hands it on, to whoever still waits for it. New connections are taken up, and nothing comes
//! back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

/// A party: a node or another server, by number.
pub type Party = usize;

/// Bytes at a time.
const PIECE: usize = 64 << 10;
/// How long a caller may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Which links are cut.
#[derive(Clone)]
pub struct Network(Arc<watch::Sender<BTreeSet<(Party, Party)>>>);

impl Default for Network {
    fn default() -> Network {
        Network(Arc::new(watch::channel(BTreeSet::new()).0))
    }
}

/// Who calls at a gate.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Always the same.
    Known(Party),
    /// Whoever names this address of its own with its first words.
    Says(Vec<(String, Party)>),
}

impl Network {
    /// Cuts links: nothing gets from the first party of each to the second.
    pub fn cut(&self, links: impl IntoIterator<Item = (Party, Party)>) {
        self.0.send_modify(|cut| cut.extend(links));
    }

    /// Cuts both directions between one party and all these.
    pub fn cut_off(&self, party: Party, others: impl IntoIterator<Item = Party>) {
        self.cut(others.into_iter().flat_map(|other| [(party, other), (other, party)]));
    }

    /// Mends all.
    pub fn mend(&self) {
        self.0.send_modify(BTreeSet::clear);
    }

    /// Opens a gate before the server at the port `target` of loopback, which is `party`.
    pub fn gate(&self, runtime: &Handle, (port, target): (u16, u16), party: Party, caller: Caller) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let cuts = self.0.subscribe();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (cuts, caller) = (cuts.clone(), caller.clone());
                tokio::spawn(async move {
                    // Either side may end it at any time.
                    let _ = hand_on(stream, target, party, caller, cuts).await;
                });
            }
        });
    }
}

type Cuts = watch::Receiver<BTreeSet<(Party, Party)>>;

async fn hand_on(
    stream: TcpStream,
    target: u16,
    party: Party,
    caller: Caller,
    cuts: Cuts,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from_caller, to_caller) = stream.into_split();
    let mut first = Vec::new();
    let caller = match caller {
        Caller::Known(caller) => caller,
        Caller::Says(names) => {
            let found = timeout(INTRODUCTION, introduced(&mut from_caller, &mut first, &names));
            found.await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))?
        }
    };
    open(&cuts, (caller, party)).await?;
    let server = TcpStream::connect(("127.0.0.1", target)).await?;
    server.set_nodelay(true)?;
    let (from_server, mut to_server) = server.into_split();
    to_server.write_all(&first).await?;
    let there = pump(from_caller, to_server, (caller, party), cuts.clone());
    let back = pump(from_server, to_caller, (party, caller), cuts);
    // When one direction ends, so does the other.
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// Reads until the caller has named itself.
async fn introduced(
    from: &mut OwnedReadHalf,
    first: &mut Vec<u8>,
    names: &[(String, Party)],
) -> std::io::Result<Party> {
    loop {
        if from.read_buf(first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let says = |name: &str| first.windows(name.len()).any(|part| part == name.as_bytes());
        // Of two addresses one may be the beginning of the other.
        let named = names.iter().filter(|(name, _)| says(name));
        if let Some((_, party)) = named.max_by_key(|(name, _)| name.len()) {
            return Ok(*party);
        }
    }
}

/// Waits until a link is whole.
async fn open(cuts: &Cuts, link: (Party, Party)) -> std::io::Result<()> {
    let whole = |cut: &BTreeSet<(Party, Party)>| !cut.contains(&link);
    let mut cuts = cuts.clone();
    cuts.wait_for(whole).await.map(drop).map_err(|_| std::io::ErrorKind::Other.into())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: (Party, Party),
    cuts: Cuts,
) -> std::io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        if from.read_buf(&mut piece).await? == 0 {
            // That it ended is said on the link, too.
            return open(&cuts, link).await;
        }
        open(&cuts, link).await?;
        to.write_all(&piece).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;

    fn echo(runtime: &Handle, port: u16) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
    }

    /// What comes back within a moment.
    async fn asks(stream: &mut TcpStream, what: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(what).await.unwrap();
        let mut back = vec![0; 64];
        let read = timeout(Duration::from_millis(300), stream.read(&mut back)).await.ok()?;
        back.truncate(read.unwrap());
        Some(back)
    }

    #[test]
    fn links_are_cut_by_direction_and_mended() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (first, network) = (ports(2), Network::default());
        echo(runtime.handle(), first + 1);
        let names = vec![("host:1".to_owned(), 1), ("host:12".to_owned(), 2)];
        network.gate(runtime.handle(), (first, first + 1), 0, Caller::Says(names));
        runtime.block_on(async {
            let connect = || TcpStream::connect(("127.0.0.1", first));
            let (mut one, mut two) = (connect().await.unwrap(), connect().await.unwrap());
            assert_eq!(asks(&mut one, b"I am host:1.").await.unwrap(), b"I am host:1.");
            assert_eq!(asks(&mut two, b"I am host:12").await.unwrap(), b"I am host:12");
            network.cut([(1, 0)]);
            assert_eq!(asks(&mut one, b"hears nobody").await, None);
            assert_eq!(asks(&mut two, b"hears me").await.unwrap(), b"hears me");
            network.mend();
            assert_eq!(asks(&mut one, b"").await.unwrap(), b"hears nobody", "held, not lost");
            network.cut_off(0, [2]);
            assert_eq!(asks(&mut two, b"comes").await, None);
            network.mend();
            network.cut([(0, 2)]);
            assert_eq!(asks(&mut two, b" in").await, None, "the answer is held");
            let mut late = connect().await.unwrap();
            assert_eq!(asks(&mut late, b"I am host:12").await, None);
            network.mend();
            assert!(asks(&mut two, b"").await.unwrap().starts_with(b"comes"));
        });
    }
}
