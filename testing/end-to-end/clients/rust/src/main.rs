//! Checks with the Rust client `etcd-client`: `end-to-end-rust-client HOST:PORT,HOST:PORT`.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LockOptions,
    PutOptions, Txn, TxnOp, WatchOptions,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::args().nth(1).ok_or("endpoints are needed")?;
    if endpoints == "--probe" {
        return Ok(());
    }
    let endpoints: Vec<String> = endpoints.split(',').map(|e| format!("http://{e}")).collect();
    let mut client = Client::connect(&endpoints, None).await?;
    keys(&mut client).await?;
    transactions(&mut client).await?;
    watches(&mut client).await?;
    leases(&mut client).await?;
    locks_and_elections(&mut client).await?;
    cluster(&mut client).await?;
    println!("all checks passed");
    Ok(())
}

async fn keys(client: &mut Client) -> Result<(), Error> {
    for key in ["rs/a", "rs/b", "rs/c"] {
        client.put(key, key.to_uppercase(), None).await?;
    }
    let all = client.get("rs/", Some(GetOptions::new().with_prefix())).await?;
    assert_eq!(all.count(), 3);
    assert_eq!(all.kvs()[0].value(), b"RS/A");
    let put = client.put("rs/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().map(|kv| kv.value().to_vec()), Some(b"RS/A".to_vec()));
    let gone = client.delete("rs/", Some(DeleteOptions::new().with_prefix())).await?;
    assert_eq!(gone.deleted(), 3);
    let refused = client.put("", "x", None).await;
    match refused {
        Err(Error::GRpcStatus(s)) => assert_eq!(s.message(), "etcdserver: key is not provided"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

async fn transactions(client: &mut Client) -> Result<(), Error> {
    client.put("rs/t", "x", None).await?;
    let txn = || {
        Txn::new()
            .when([Compare::value("rs/t", CompareOp::Equal, "x")])
            .and_then([TxnOp::put("rs/t", "y", None)])
            .or_else([TxnOp::get("rs/t", None)])
    };
    assert!(client.txn(txn()).await?.succeeded());
    assert!(!client.txn(txn()).await?.succeeded());
    Ok(())
}

async fn watches(client: &mut Client) -> Result<(), Error> {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("rs/w/", Some(options)).await?;
    client.put("rs/w/1", "one", None).await?;
    client.delete("rs/w/1", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let response = stream.message().await?.expect("the stream goes on");
        seen.extend(response.events().iter().map(|event| event.event_type()));
    }
    assert_eq!(seen, [EventType::Put, EventType::Delete]);
    Ok(())
}

async fn leases(client: &mut Client) -> Result<(), Error> {
    let lease = client.lease_grant(60, None).await?.id();
    client.put("rs/l", "leased", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(answers.message().await?.map(|answer| answer.ttl()), Some(60));
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("rs/l", None).await?.count(), 0);
    Ok(())
}

async fn locks_and_elections(client: &mut Client) -> Result<(), Error> {
    let lease = client.lease_grant(30, None).await?.id();
    let options = LockOptions::new().with_lease(lease);
    let lock = client.lock("rs/lock", Some(options)).await?;
    client.unlock(lock.key()).await?;
    let won = client.campaign("rs/office", "me", lease).await?;
    assert!(won.leader().is_some());
    let leader = client.leader("rs/office").await?;
    assert_eq!(leader.kv().map(|kv| kv.value().to_vec()), Some(b"me".to_vec()));
    client.lease_revoke(lease).await?;
    Ok(())
}

async fn cluster(client: &mut Client) -> Result<(), Error> {
    assert_eq!(client.member_list().await?.members().len(), 3);
    let status = client.status().await?;
    assert_eq!(status.version(), "3.7.0");
    assert!(status.leader() != 0);
    Ok(())
}
