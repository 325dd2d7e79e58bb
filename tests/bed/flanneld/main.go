// Flanneld of Flannel's own packages: its subnet manager for Kubernetes and its VXLAN backend. Its own main package
// cannot be built, for one of its other backends wants a cloud's library that the module proxy does not serve.
//
// As flanneld --kube-subnet-mgr --iface=eth0 --iptables-forward-rules=false; NODE_NAME says which node it is.
package main

import (
	"context"
	"flag"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/ipmatch"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"k8s.io/klog/v2"
)

func main() {
	kubeconfig := flag.String("kubeconfig-file", "", "of who may read Nodes and annotate its own")
	flag.Parse()
	if err := run(*kubeconfig); err != nil {
		klog.Fatal(err)
	}
}

func run(kubeconfig string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	const prefix, netConf = "flannel.alpha.coreos.com", "/etc/kube-flannel/net-conf.json"
	leases, err := kube.NewSubnetManager(ctx, "", kubeconfig, prefix, netConf, true)
	if err != nil {
		return err
	}
	config, err := leases.GetNetworkConfig(ctx)
	if err != nil {
		return err
	}
	families, err := ipmatch.GetIPFamily(config.EnableIPv4, config.EnableIPv6)
	if err != nil {
		return err
	}
	outside, err := ipmatch.LookupExtIface("eth0", "", "", families, ipmatch.PublicIPOpts{})
	if err != nil {
		return err
	}
	vxlan, err := backend.NewManager(ctx, leases, outside).GetBackend(config.BackendType)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	network, err := vxlan.RegisterNetwork(ctx, &running, config)
	if err != nil {
		return err
	}
	lease := network.Lease()
	err = leases.HandleSubnetFile("/run/flannel/subnet.env", config, true, lease.Subnet, lease.IPv6Subnet, network.MTU())
	if err != nil {
		return err
	}
	if err = leases.CompleteLease(ctx, lease, &running); err != nil {
		return err
	}
	network.Run(ctx)
	return nil
}
