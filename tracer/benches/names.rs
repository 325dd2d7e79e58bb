//! Names of a large cluster: how long it takes to list them, how much memory they take, and how long it takes
//! to look one up.
//!
//! `cargo xtask bench names`. This process plays the API server, over HTTP on loopback; another asks it as the
//! tracer does, and tells its own memory. It fails when the tracer would not fit into what the DaemonSet's
//! manifest allows.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]
#![expect(clippy::cast_precision_loss, reason = "what is printed is rounded")]

use std::{
    env,
    fmt::Write as _,
    fs,
    hint::black_box,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracer::{
    cluster::{self, Cluster},
    model::{Index, Protocol, WallNs, change::Kind, index::Standing},
    record,
};

const NODES: usize = 5_000;
const PODS: usize = 150_000;
const SERVICES: usize = 20_000;
/// Pods of one Deployment, and of one ReplicaSet: three, and another one of before.
const REPLICAS: usize = 3;

/// Where the other process finds the API server.
const KUBECONFIG: &str = "TRACER_BENCH_KUBECONFIG";

/// The DaemonSet's limit on memory, in MiB: `resources` in manifests/base/daemonset.yaml. What is measured here
/// leaves out what a trace itself takes.
const LIMIT: u64 = 512;
const A_TRACE_TAKES: u64 = 100;

const LOOK_UPS: usize = 1_000_000;

fn main() -> io::Result<ExitCode> {
    match env::var_os(KUBECONFIG) {
        Some(kubeconfig) => ask(Path::new(&kubeconfig)),
        None => serve(),
    }
}

/// Plays the API server for as long as the other process runs.
fn serve() -> io::Result<ExitCode> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // It ends when the one who asked is gone.
            thread::spawn(move || drop(answer(&stream)));
        }
    });
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(
        &kubeconfig,
        format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]}}"
        ),
    )?;
    let asked = Command::new(env::current_exe()?)
        .env(KUBECONFIG, &kubeconfig)
        .status();
    Ok(if asked?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Answers each request on one connection: a page of a list, or a watch in which nothing happens.
fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        while lines
            .next()
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        let target = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let mut out = stream;
        if parameter("watch").is_some() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            out.write_all(head.as_bytes())?;
            // Until the connection is closed.
            return lines.next().transpose().map(drop);
        }
        let number = |name| parameter(name).and_then(|value| value.parse().ok());
        let page = page(
            path,
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(500),
        );
        write!(
            out,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{page}",
            page.len()
        )?;
    }
    Ok(())
}

/// A page of a list, from object `from` on.
fn page(path: &str, from: usize, limit: usize) -> String {
    let (kind, version, all, object): (_, _, _, fn(usize) -> String) =
        match path.rsplit('/').next().unwrap_or_default() {
            "pods" => ("PodList", "v1", PODS, pod),
            "services" => ("ServiceList", "v1", SERVICES, service),
            "nodes" => ("NodeList", "v1", NODES, node),
            "endpointslices" => ("EndpointSliceList", "discovery.k8s.io/v1", SERVICES, slice),
            "replicasets" => (
                "PartialObjectMetadataList",
                "meta.k8s.io/v1",
                2 * PODS / REPLICAS,
                replica_set,
            ),
            _ => ("PartialObjectMetadataList", "meta.k8s.io/v1", 0, pod),
        };
    let to = all.min(from + limit);
    let items: Vec<_> = (from..to).map(object).collect();
    let next = if to < all {
        to.to_string()
    } else {
        String::new()
    };
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

/// Which namespace, workload and node a pod belongs to. A namespace has 25 Deployments or so.
fn of_pod(pod: usize) -> (usize, usize, usize) {
    let workload = pod / REPLICAS;
    (workload / 25, workload, pod % NODES)
}

fn pod_address(pod: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 + u32::try_from(pod).unwrap_or(0))
}

fn service_address(service: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(service).unwrap_or(0))
}

/// Fields that a manager owns, as the API server sends them with every object.
fn managed(manager: &str, labels: usize) -> String {
    let mut fields = String::new();
    for label in 0..labels {
        let _ = write!(fields, r#""f:label-{label}.example.com/name":{{}},"#);
    }
    format!(
        r#""managedFields":[{{"manager":"{manager}","operation":"Update","apiVersion":"v1","time":"2026-11-25T20:11:30Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:labels":{{{fields}".":{{}}}}}},"f:spec":{{"f:containers":{{"k:{{\"name\":\"main\"}}":{{".":{{}},"f:env":{{}},"f:image":{{}},"f:resources":{{".":{{}}}}}}}}}},"f:status":{{"f:conditions":{{}},"f:podIPs":{{}}}}}}}}]"#
    )
}

fn pod(number: usize) -> String {
    let (namespace, workload, node) = of_pod(number);
    let address = pod_address(number);
    let env: Vec<_> = (0..20)
        .map(|variable| {
            format!(
                r#"{{"name":"SETTING_{variable}","value":"a value of some length {variable}"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"metadata":{{"name":"app-{workload}-7d9f8c6b5-{number:05x}","generateName":"app-{workload}-7d9f8c6b5-","namespace":"team-{namespace}","uid":"2ee4eb5b-0000-4000-8000-{number:012x}","resourceVersion":"1","creationTimestamp":"2026-11-25T20:11:30Z","labels":{{"app.kubernetes.io/name":"app-{workload}","app.kubernetes.io/instance":"app-{workload}","app.kubernetes.io/version":"1.2.3","team":"team-{namespace}","pod-template-hash":"7d9f8c6b5"}},"annotations":{{"prometheus.io/scrape":"true","checksum/config":"9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{workload}-7d9f8c6b5","uid":"1","controller":true,"blockOwnerDeletion":true}}],{managed}}},"spec":{{"nodeName":"node-{node}","serviceAccountName":"app","containers":[{{"name":"main","image":"registry.example.com/team/app:1.2.3","env":[{env}],"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}},"terminationMessagePath":"/dev/termination-log"}}],"tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"status":{{"phase":"Running","conditions":[{{"type":"Initialized","status":"True"}},{{"type":"Ready","status":"True"}},{{"type":"ContainersReady","status":"True"}},{{"type":"PodScheduled","status":"True"}}],"hostIP":"10.0.0.1","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"startTime":"2026-11-25T20:11:31Z","containerStatuses":[{{"name":"main","state":{{"running":{{"startedAt":"2026-11-25T20:11:32Z"}}}},"ready":true,"restartCount":0,"image":"registry.example.com/team/app:1.2.3","imageID":"registry.example.com/team/app@sha256:0","containerID":"containerd://0"}}],"qosClass":"Burstable"}}}}"#,
        managed = managed("kube-controller-manager", 5),
        env = env.join(",")
    )
}

fn replica_set(number: usize) -> String {
    let (workload, hash) = (number / 2, ["7d9f8c6b5", "5c4b3a2f1"][number % 2]);
    let namespace = workload / 25;
    format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{{"name":"app-{workload}-{hash}","namespace":"team-{namespace}","uid":"{number}","ownerReferences":[{{"apiVersion":"apps/v1","kind":"Deployment","name":"app-{workload}","uid":"1","controller":true}}],{}}}}}"#,
        managed("kube-controller-manager", 5)
    )
}

fn service(number: usize) -> String {
    let (namespace, address) = (number / 25, service_address(number));
    format!(
        r#"{{"metadata":{{"name":"app-{number}","namespace":"team-{namespace}","uid":"3ee4eb5b-0000-4000-8000-{number:012x}","creationTimestamp":"2026-11-25T20:11:30Z",{}}},"spec":{{"type":"ClusterIP","clusterIP":"{address}","clusterIPs":["{address}"],"selector":{{"app.kubernetes.io/name":"app-{number}"}},"ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080}},{{"name":"metrics","protocol":"TCP","port":9090,"targetPort":9090}}],"internalTrafficPolicy":"Cluster","sessionAffinity":"None"}}}}"#,
        managed("kubectl", 3)
    )
}

/// Seven endpoints or so for each Service, each with the pod that it is.
fn slice(number: usize) -> String {
    let namespace = number / 25;
    let each = PODS / SERVICES;
    let endpoints: Vec<_> = (number * each..(number + 1) * each)
        .map(|pod| {
            let (_, workload, node) = of_pod(pod);
            format!(
                r#"{{"addresses":["{}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{node}","targetRef":{{"kind":"Pod","namespace":"team-{namespace}","name":"app-{workload}-7d9f8c6b5-{pod:05x}","uid":"2ee4eb5b-0000-4000-8000-{pod:012x}"}}}}"#,
                pod_address(pod)
            )
        })
        .collect();
    format!(
        r#"{{"metadata":{{"name":"app-{number}-x2x4b","namespace":"team-{namespace}","uid":"4","labels":{{"kubernetes.io/service-name":"app-{number}"}},{}}},"addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"http","protocol":"TCP","port":8080}},{{"name":"metrics","protocol":"TCP","port":9090}}]}}"#,
        managed("kube-controller-manager", 3),
        endpoints.join(",")
    )
}

fn node(number: usize) -> String {
    let address = Ipv4Addr::from_bits(0xac10_0000 + u32::try_from(number).unwrap_or(0));
    let labels: Vec<_> = (0..15)
        .map(|label| format!(r#""label-{label}.example.com/name":"value-{label}""#))
        .collect();
    let images: Vec<_> = (0..50)
        .map(|image| format!(r#"{{"names":["registry.example.com/team/image-{image}@sha256:9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"],"sizeBytes":123456789}}"#))
        .collect();
    format!(
        r#"{{"metadata":{{"name":"node-{number}","uid":"5","labels":{{"kubernetes.io/hostname":"node-{number}","topology.kubernetes.io/zone":"zone-{}",{}}},{}}},"spec":{{"podCIDR":"10.244.0.0/24"}},"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}},{{"type":"Hostname","address":"node-{number}"}}],"conditions":[{{"type":"Ready","status":"True"}}],"images":[{}]}}}}"#,
        number % 3,
        labels.join(","),
        managed("kubelet", 15),
        images.join(",")
    )
}

/// Asks as the tracer does, until all is known, and tells what that takes.
fn ask(kubeconfig: &Path) -> io::Result<ExitCode> {
    let (before, _) = memory()?;
    let begin = Instant::now();
    let options = cluster::Options {
        kubeconfig: Some(kubeconfig.to_owned()),
        own_pods: false,
    };
    let cluster = cluster::connect(&options).map_err(io::Error::other)?;
    let mut cluster = cluster.ok_or(io::ErrorKind::NotFound)?;
    let mut index = Index::default();
    listen(&mut cluster, &mut index)?;
    let took = begin.elapsed();
    let (listed, peak) = memory()?;
    println!(
        "{NODES} nodes, {PODS} pods, {SERVICES} Services: listed in {:.1} s, {} MiB, {} MiB at the peak",
        took.as_secs_f64(),
        listed - before,
        peak - before
    );
    look_up(&index);
    let begin = Instant::now();
    let file = kubeconfig.with_file_name("names");
    record::write_kept(&file, &index.snapshot(now()))?;
    let (_, peak) = memory()?;
    println!(
        "kept on disk in {:.1} s, {} MB, {} MiB at the peak",
        begin.elapsed().as_secs_f64(),
        fs::metadata(&file)?.len() / 1_000_000,
        peak - before
    );
    let fits = peak + A_TRACE_TAKES <= LIMIT;
    if !fits {
        println!("that does not fit into the DaemonSet's {LIMIT} MiB beside a trace");
    }
    Ok(if fits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Takes what is said until every kind has been listed.
fn listen(cluster: &mut Cluster, index: &mut Index) -> io::Result<()> {
    let watched = |index: &Index, kind| matches!(index.standing(kind), Standing::Watched { .. });
    while !Kind::ALL.into_iter().all(|kind| watched(index, kind)) {
        let change = cluster
            .changes
            .blocking_recv()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        index.apply(change);
        if let Some(lost) = Kind::ALL
            .into_iter()
            .find_map(|kind| match index.standing(kind) {
                Standing::Lost { why, .. } => Some(why),
                _ => None,
            })
        {
            return Err(io::Error::other(lost.to_string()));
        }
    }
    // The pods whose owners were listed after them.
    thread::sleep(Duration::from_secs(1));
    while let Ok(change) = cluster.changes.try_recv() {
        index.apply(change);
    }
    Ok(())
}

fn look_up(index: &Index) {
    let at = now();
    // Far apart, as addresses in a row are.
    let numbers = (0..LOOK_UPS).map(|number| number.wrapping_mul(7919));
    let begin = Instant::now();
    let pods = numbers.clone().filter(|number| {
        let address = IpAddr::V4(pod_address(number % PODS));
        let pod = black_box(index.pod_at(address, at, at));
        pod.is_some_and(|pod| pod.workload().is_some_and(|of| &*of.kind == "Deployment"))
    });
    let pods = pods.count();
    let pod_ns = begin.elapsed().as_nanos() as f64 / LOOK_UPS as f64;
    let begin = Instant::now();
    let services = numbers.filter(|number| {
        let address = SocketAddr::from((service_address(number % SERVICES), 80));
        black_box(index.service_at(address, Protocol::Tcp, at, at)).is_some()
    });
    let services = services.count();
    let service_ns = begin.elapsed().as_nanos() as f64 / LOOK_UPS as f64;
    assert_eq!((pods, services), (LOOK_UPS, LOOK_UPS), "each has its name");
    println!("a pod is found in {pod_ns:.0} ns, a Service in {service_ns:.0} ns");
}

fn now() -> WallNs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallNs(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Resident memory of this process, now and at its peak, in MiB.
fn memory() -> io::Result<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.ok_or_else(|| io::Error::other(format!("/proc/self/status has no {key}")))
    };
    Ok((kib("VmRSS:")? / 1024, kib("VmHWM:")? / 1024))
}
