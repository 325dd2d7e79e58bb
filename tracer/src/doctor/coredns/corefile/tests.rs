//! Corefiles as people write them, and as they mistake them.

use super::*;

const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn faults(text: &str) -> Vec<String> {
    let file = Corefile::parse(text);
    let faults = file.faults.iter();
    faults
        .map(|fault| format!("{}: {}", fault.line, fault.what))
        .collect()
}

#[test]
fn kubeadms_file_is_without_fault() {
    let file = Corefile::parse(KUBEADM);
    assert_eq!(file.faults, []);
    let server = file.server("cluster.local", 53).unwrap();
    assert_eq!(server.zones, [(".".to_owned(), 53)]);
    let kubernetes = server.plugin("kubernetes").unwrap();
    assert_eq!(
        kubernetes.args,
        ["cluster.local", "in-addr.arpa", "ip6.arpa"]
    );
    let ttl = &kubernetes.options[2];
    assert_eq!((ttl.name.as_str(), ttl.args[0].as_str()), ("ttl", "30"));
    assert_eq!(kubernetes.line, 7);
}

#[test]
fn a_plugin_that_does_not_exist_is_named_with_its_line() {
    let text = KUBEADM.replace("kubernetes cluster", "kubernets cluster");
    assert_eq!(
        faults(&text),
        ["7: there is no plugin kubernets: is kubernetes meant?"]
    );
}

#[test]
fn the_removed_proxy_is_told_from_a_mistake() {
    let text = ".:53 {\n  proxy . 8.8.8.8\n}\n";
    assert_eq!(
        faults(text),
        ["2: plugin proxy was removed in CoreDNS 1.5: write forward instead"]
    );
}

#[test]
fn braces_that_do_not_match_are_found() {
    assert_eq!(
        faults(".:53 {\n  errors\n"),
        ["1: the { of this line is never closed"]
    );
    assert_eq!(
        faults(".:53 {\n  errors\n}\n}\n"),
        ["4: a } closes nothing"]
    );
    assert_eq!(faults(".:53\n"), ["1: .:53 is followed by no {"]);
}

#[test]
fn options_are_known_by_their_plugin() {
    let of = |line: &str| {
        faults(&format!(
            ".:53 {{\n  kubernetes cluster.local {{\n    {line}\n  }}\n}}\n"
        ))
    };
    assert_eq!(of("pods insecure"), [""; 0]);
    assert_eq!(
        of("pods everywhere"),
        ["3: pods wants disabled, insecure or verified"]
    );
    assert_eq!(
        of("ttl 4000"),
        ["3: ttl wants a number of seconds from 0 to 3600"]
    );
    assert_eq!(of("fallthru"), ["3: kubernetes has no option fallthru"]);
    assert_eq!(
        of("upstream"),
        ["3: kubernetes takes no upstream any more: delete the line"]
    );
    assert_eq!(
        faults(".:53 {\n  forward .\n}\n"),
        ["2: forward wants a zone and where to: forward . /etc/resolv.conf"]
    );
}

#[test]
fn snippets_are_imported_and_files_passed_over() {
    let text = "(common) {\n  errors\n  cache 30\n}\n.:53 {\n  import common\n  import custom/*.override\n  forward . 192.0.2.1\n}\n";
    let file = Corefile::parse(text);
    assert_eq!(file.faults, []);
    assert!(file.servers[0].plugin("cache").is_some());
    assert_eq!(
        faults(".:53 {\n  import comon\n}\n"),
        ["2: import comon: there is no snippet (comon) above"]
    );
}

#[test]
fn the_longest_zone_answers_on_its_own_port() {
    let text = ".:53 {\n errors\n}\nexample.org, example.net:1053 {\n errors\n}\n";
    let file = Corefile::parse(text);
    assert_eq!(file.server("a.example.org", 53).unwrap().line, 4);
    assert_eq!(file.server("a.example.net", 53).unwrap().line, 1);
    assert_eq!(file.server("a.example.net", 1053).unwrap().line, 4);
    assert!(file.server("a.test", 1053).is_none());
}

#[test]
fn a_zone_served_twice_and_a_plugin_twice_are_faults() {
    assert_eq!(
        faults(".:53 {\n errors\n}\n. {\n errors\n errors\n}\n"),
        [
            "4: .:53 is served by a block above already",
            "6: plugin errors stands twice in one block"
        ]
    );
}

#[test]
fn comments_and_quotes_are_read_as_caddy_does() {
    let text = "# all\n.:53 { # root\n  hosts {\n    192.0.2.1 a#b.test\n  }\n  template ANY ANY \"{ not a block\" {\n    rcode NXDOMAIN\n  }\n}\n";
    let file = Corefile::parse(text);
    assert_eq!(file.faults, []);
    assert_eq!(file.servers[0].plugins[0].options[0].args, ["a#b.test"]);
    assert_eq!(file.servers[0].plugins[1].args[2], "{ not a block");
}
