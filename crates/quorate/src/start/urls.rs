//! Lists of URLs as etcd's flags write them.

use std::net::{SocketAddr, ToSocketAddrs};

/// The URLs of a list separated by commas, each checked.
pub fn list(flag: &str, text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(|url| host_and_port(url).map(|_| url.to_owned()))
        .collect::<Result<_, String>>()
        .map_err(|why| format!("--{flag}: {why}"))?;
    match urls.is_empty() {
        true => Err(format!("--{flag}: at least one URL is needed")),
        false => Ok(urls),
    }
}

/// What is between `http://` and the end.
fn host_and_port(url: &str) -> Result<&str, String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("`{url}` is no URL: it should be http://host:port"));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match (scheme, port) {
        ("http", Some(_)) if !authority.contains('/') => Ok(authority),
        ("https", _) => Err(format!("`{url}`: TLS is not supported yet, use http://")),
        ("http", _) => Err(format!("`{url}` should be http://host:port")),
        _ => Err(format!("`{url}`: only http:// is supported")),
    }
}

/// The addresses to listen on.
pub fn addresses(flag: &str, urls: &[String]) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for url in urls {
        let authority = host_and_port(url).map_err(|why| format!("--{flag}: {why}"))?;
        let resolved = authority.to_socket_addrs();
        let mut resolved = resolved.map_err(|e| format!("--{flag}: `{url}`: {e}"))?;
        // One address for each URL: a name that has several would be listened to twice.
        let first = resolved.next().ok_or_else(|| format!("--{flag}: `{url}` has no address"))?;
        if !addresses.contains(&first) {
            addresses.push(first);
        }
    }
    Ok(addresses)
}

/// A list `name=url,name=url` of keyspaces and where their clients are listened to.
pub fn keyspaces(text: &str) -> Result<Vec<(String, SocketAddr)>, String> {
    const FLAG: &str = "listen-keyspace-urls";
    let mut all = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((name, url)) = item.split_once('=') else {
            return Err(format!("--{FLAG}: `{item}` is not name=url"));
        };
        let address = addresses(FLAG, &[url.to_owned()])?;
        all.extend(address.into_iter().map(|address| (name.to_owned(), address)));
    }
    Ok(all)
}

/// A list `name=url,name=url`: each name once, with all its URLs.
pub fn members(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let Some((name, url)) = item.split_once('=') else {
            return Err(format!("--initial-cluster: `{item}` is not name=url"));
        };
        host_and_port(url).map_err(|why| format!("--initial-cluster: {why}"))?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => members.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_checked() {
        let urls = list("f", "http://a:1, http://b:2/").unwrap();
        assert_eq!(urls, ["http://a:1", "http://b:2/"]);
        for bad in ["", "a:1", "https://a:1", "http://a", "http://a:x", "http://a:1/b", "unix://a"]
        {
            let error = list("flag", bad).unwrap_err();
            assert!(error.starts_with("--flag: "), "{error}");
        }
    }

    #[test]
    fn a_member_may_have_several_urls() {
        let members = members("a=http://a:1,b=http://b:1,a=http://a:2").unwrap();
        assert_eq!(members[0], ("a".into(), vec!["http://a:1".into(), "http://a:2".into()]));
        assert_eq!(members[1], ("b".into(), vec!["http://b:1".into()]));
        assert!(super::members("a:http://a:1").is_err());
    }

    #[test]
    fn loopback_resolves() {
        let urls = ["http://127.0.0.1:7/".to_owned(), "http://[::1]:8".to_owned()];
        let addresses = addresses("f", &urls).unwrap();
        assert_eq!(addresses.iter().map(SocketAddr::port).collect::<Vec<_>>(), [7, 8]);
    }
}
