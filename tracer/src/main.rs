//! The `tracer` program.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(std::io::stderr)
        .init();
    let mut k = tracer::kernel::Kernel::load(&tracer::kernel::Options {
        dns_ports: vec![53],
        connections: true,
        vips: vec![],
        ring_bytes: 8 << 20,
        log: false,
    })?;
    for p in k.probes() {
        println!("{:?}", p);
    }
    println!("{:?}", k.blind_spots());
    let mut s = k.stream()?;
    let t = std::time::Instant::now();
    while t.elapsed().as_secs() < 6 {
        s.ready().await?;
        s.drain(&mut |f| println!("{f:?}"));
    }
    println!("{:?}", k.losses()?);
    Ok(())
}
