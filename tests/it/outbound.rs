//! Does any request reach a place that it must not reach, or take longer or more than it may?

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use haldir::outbound::client::{Answer, Client, OutboundError};
use haldir::outbound::guard::Unsafe;
use haldir::outbound::names::{Names, SystemNames};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// An address that passes the guard. Nothing here may really ask it.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

/// Names that point where they are told to: each look-up takes the next answer, and the last one stays.
struct Told {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Told {
    fn new(answers: &[&[IpAddr]]) -> Arc<Self> {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }
}

impl Names for Told {
    fn look_up<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers[asked.min(self.answers.len() - 1)].clone();
        Box::pin(async move { answer })
    }
}

/// A receiver on loopback: what it does with each connection, its port, and how many came.
async fn receiver<F, Done>(serve: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (port, came)
}

/// Reads a request and answers with these bytes.
async fn answer(mut stream: TcpStream, answer: &[u8]) {
    let mut request = vec![0; 4096];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(answer).await;
}

async fn post(client: &Client, url: &str) -> Result<Answer, OutboundError> {
    client.post(url, &[], b"{}".to_vec(), 512).await
}

#[tokio::test]
async fn a_name_that_turns_to_loopback_after_it_was_checked_reaches_nobody() {
    let (port, came) =
        receiver(|stream| answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let names = Told::new(&[&[PUBLIC], &[LOOPBACK]]);
    let client = Client::new(names.clone(), false).unwrap();
    let url = format!("http://rebinding.example:{port}/hook");

    assert_eq!(client.check(&url).await, Ok(()), "at first the name is public");
    assert_eq!(post(&client, &url).await, Err(OutboundError::Unsafe(Unsafe::Private)));
    assert_eq!(names.asked.load(Ordering::SeqCst), 2, "the connection looks the name up for itself");
    assert_eq!(came.load(Ordering::SeqCst), 0);

    // The same with permission: so it was the guard that held it back.
    let client = Client::new(Told::new(&[&[LOOPBACK]]), true).unwrap();
    assert_eq!(post(&client, &url).await, Ok(Answer { status: 200, beginning: vec![] }));
    assert_eq!(came.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_bad_address_among_good_ones_spoils_a_name() {
    let client = Client::new(Told::new(&[&[PUBLIC, LOOPBACK]]), false).unwrap();
    assert_eq!(client.check("https://mixed.example/").await, Err(Unsafe::Private));
    assert_eq!(post(&client, "https://mixed.example/").await, Err(OutboundError::Unsafe(Unsafe::Private)));
    let client = Client::new(Told::new(&[&[]]), false).unwrap();
    assert_eq!(client.check("https://nobody.example/").await, Err(Unsafe::Unresolved));
    assert_eq!(
        post(&client, "https://nobody.example/").await,
        Err(OutboundError::Unsafe(Unsafe::Unresolved))
    );
}

#[tokio::test]
async fn addresses_in_the_url_are_refused_without_a_look_up() {
    let (port, came) = receiver(|stream| answer(stream, b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let client = Client::new(Arc::new(SystemNames), false).unwrap();
    for host in ["127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(client.check(&url).await, Err(Unsafe::Private), "{url}");
        assert_eq!(post(&client, &url).await, Err(OutboundError::Unsafe(Unsafe::Private)), "{url}");
    }
    assert_eq!(client.check("http://169.254.169.254/latest/meta-data/").await, Err(Unsafe::Private));
    assert_eq!(client.check("http://[fd00:ec2::254]/").await, Err(Unsafe::Private));
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let (inside, came) = receiver(|stream| answer(stream, b"HTTP/1.1 200 OK\r\n\r\n")).await;
    let redirect = format!(
        "HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n"
    );
    let redirect: &'static str = redirect.leak();
    let (port, _) = receiver(move |stream| answer(stream, redirect.as_bytes())).await;
    let client = Client::new(Arc::new(SystemNames), true).unwrap();
    let answered = post(&client, &format!("http://127.0.0.1:{port}/")).await.unwrap();
    assert_eq!((answered.status, came.load(Ordering::SeqCst)), (307, 0));
}

#[tokio::test]
async fn of_an_answer_only_the_beginning_is_read() {
    let (port, _) = receiver(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        // Without end.
        while stream.write_all(&vec![b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let client = Client::new(Arc::new(SystemNames), true).unwrap();
    let answered = post(&client, &format!("http://127.0.0.1:{port}/")).await.unwrap();
    assert_eq!(answered, Answer { status: 200, beginning: vec![b'x'; 512] });
}

#[tokio::test]
async fn what_goes_wrong_has_a_name() {
    let client = Client::new(Arc::new(SystemNames), true).unwrap();
    let (closing, _) = receiver(|stream| async move { drop(stream) }).await;
    assert_eq!(post(&client, &format!("http://127.0.0.1:{closing}/")).await, Err(OutboundError::Broken));
    let (babbling, _) = receiver(|stream| answer(stream, b"what?\r\n\r\n")).await;
    assert_eq!(post(&client, &format!("http://127.0.0.1:{babbling}/")).await, Err(OutboundError::Broken));
    assert_eq!(post(&client, &format!("https://127.0.0.1:{babbling}/")).await, Err(OutboundError::Tls));
    let free = TcpListener::bind((LOOPBACK, 0)).await.unwrap().local_addr().unwrap().port();
    assert_eq!(post(&client, &format!("http://127.0.0.1:{free}/")).await, Err(OutboundError::Connect));
}

#[tokio::test]
async fn a_receiver_that_hangs_or_drips_is_left_in_time() {
    let started = Instant::now();
    let hanging = async {
        let (port, _) = receiver(|mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .await;
        let client = Client::new(Arc::new(SystemNames), true).unwrap();
        assert_eq!(post(&client, &format!("http://127.0.0.1:{port}/")).await, Err(OutboundError::TimedOut));
    };
    let dripping = async {
        let (port, _) = receiver(|mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 512\r\n\r\n").await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
        let client = Client::new(Arc::new(SystemNames), true).unwrap();
        let answered = post(&client, &format!("http://127.0.0.1:{port}/")).await.unwrap();
        assert_eq!(answered.status, 200, "the status was there");
        assert!((5..100).contains(&answered.beginning.len()), "{}", answered.beginning.len());
    };
    tokio::join!(hanging, dripping);
    assert!((9..13).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}
