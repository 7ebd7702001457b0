// A device plugin that offers the names it is given, as NVIDIA's offers cards, their replicas and MIG devices:
//
//	deviceplugin FOLDER nvidia.com/gpu=GPU-1,GPU-2 nvidia.com/gpu.shared=GPU-3::0,GPU-3::1 nvidia.com/mig-1g.10gb=MIG-1
//
// FOLDER is the kubelet's device-plugins. A kubelet that starts empties it: then everything is registered again.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	ids []string
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	answer := &api.ListAndWatchResponse{}
	for _, id := range p.ids {
		answer.Devices = append(answer.Devices, &api.Device{ID: id, Health: api.Healthy})
	}
	if err := stream.Send(answer); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	answer := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		visible := map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
		answer.ContainerResponses = append(answer.ContainerResponses, &api.ContainerAllocateResponse{Envs: visible})
	}
	return answer, nil
}

func offer(folder, resource string, ids []string) error {
	name := strings.ReplaceAll(resource, "/", "_") + ".sock"
	path := filepath.Join(folder, name)
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	defer server.Stop()
	api.RegisterDevicePluginServer(server, &plugin{ids: ids})
	go func() { _ = server.Serve(listener) }()
	kubelet, err := grpc.NewClient("unix://"+filepath.Join(folder, "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer kubelet.Close()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: name, ResourceName: resource}
	if _, err := api.NewRegistrationClient(kubelet).Register(context.Background(), request); err != nil {
		return err
	}
	log.Printf("registered %s: %s", resource, strings.Join(ids, " "))
	for {
		time.Sleep(200 * time.Millisecond)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the kubelet has started again")
		}
	}
}

func main() {
	for _, word := range os.Args[2:] {
		resource, ids, _ := strings.Cut(word, "=")
		go func() {
			for {
				log.Printf("%s: %v", resource, offer(os.Args[1], resource, strings.Split(ids, ",")))
				time.Sleep(500 * time.Millisecond)
			}
		}()
	}
	select {}
}
