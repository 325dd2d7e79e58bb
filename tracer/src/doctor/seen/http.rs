//! What the node's own ports answer: one GET, over HTTP/1.0 and without TLS, with a short limit.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is read, in bytes.
const LENGTH: u64 = 512 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its status (RFC 9110, section 15).
    pub status: u16,
    /// Its content.
    pub body: String,
}

impl Page {
    /// Whether the status says so.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Gets `path` from `at`.
///
/// # Errors
/// In words: nobody listens, or nothing sensible comes in time.
pub(in crate::doctor) async fn get(at: SocketAddr, path: &str) -> Result<Page, String> {
    let answer = timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", at.ip());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LENGTH).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    match answer.await {
        Ok(Ok(answer)) => parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| format!("{at}{path} does not speak HTTP")),
        Ok(Err(error)) => Err(format!("{at}{path}: {error}")),
        Err(_) => Err(format!(
            "{at}{path}: no answer within {} s",
            PATIENCE.as_secs()
        )),
    }
}

/// Connects to `at`, and hangs up.
///
/// # Errors
/// In words: nobody accepts within the limit.
pub(in crate::doctor) async fn connect(at: SocketAddr) -> Result<(), String> {
    match timeout(PATIENCE, TcpStream::connect(at)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{at}: {error}")),
        Err(_) => Err(format!(
            "{at}: no connection within {} s",
            PATIENCE.as_secs()
        )),
    }
}

fn parse(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?;
    Some(Page {
        status: status.parse().ok()?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let page = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nnot yet").unwrap();
        assert_eq!((page.status, page.body.as_str()), (503, "not yet"));
        assert!(!page.is_good());
        assert_eq!(parse("SSH-2.0-OpenSSH_9.2\r\n"), None);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = nobody.local_addr().unwrap();
        drop(nobody);
        let said = get(at, "/healthz").await.unwrap_err();
        assert!(said.contains("refused"), "{said}");
    }
}
