// A DRA driver that offers devices by name, as NVIDIA's offers cards: dradriver KUBECONFIG NODE gpu.nvidia.com gpu-0 gpu-1
//
// Nothing is prepared: the kubelet only notes which device a claim got.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

type driver struct{}

func (driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		var prepared kubeletplugin.PrepareResult
		for _, each := range claim.Status.Allocation.Devices.Results {
			prepared.Devices = append(prepared.Devices, kubeletplugin.Device{
				Requests: []string{each.Request}, PoolName: each.Pool, DeviceName: each.Device,
			})
		}
		results[claim.UID] = prepared
	}
	return results, nil
}

func (driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		results[claim.UID] = nil
	}
	return results, nil
}

func (driver) HandleError(_ context.Context, err error, message string) {
	log.Printf("%s: %v", message, err)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		os.Exit(1)
	}
}

func (driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

func main() {
	ctx, node, name := context.Background(), os.Args[2], os.Args[3]
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	folder := "/var/lib/kubelet/plugins/" + name
	if err := os.MkdirAll(folder, 0o750); err != nil {
		log.Fatal(err)
	}
	helper, err := kubeletplugin.Start(ctx, driver{}, kubeletplugin.DriverName(name), kubeletplugin.NodeName(node),
		kubeletplugin.KubeClient(kubernetes.NewForConfigOrDie(config)))
	if err != nil {
		log.Fatal(err)
	}
	var devices []resourceapi.Device
	for _, each := range os.Args[4:] {
		devices = append(devices, resourceapi.Device{Name: each})
	}
	pool := resourceslice.Pool{Slices: []resourceslice.Slice{{Devices: devices}}}
	resources := resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{node: pool}}
	if err := helper.PublishResources(ctx, resources); err != nil {
		log.Fatal(err)
	}
	for {
		time.Sleep(time.Hour)
	}
}
