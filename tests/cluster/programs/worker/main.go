// What the images of the check contain. Without words it sleeps, as a pod's pause does; with -duty 0.3 it uses that
// share of a CPU, with -for 2s it ends then, with -exit 1 in that status. Other words are ignored, so that a command
// line may name a model.
package main

import (
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const period = 20 * time.Millisecond

func main() {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	duty := flags.Float64("duty", 0, "share of a CPU that is used")
	lasts := flags.Duration("for", 0, "how long it runs, 0: until it is ended")
	status := flags.Int("exit", 0, "its exit status then")
	if err := flags.Parse(os.Args[1:]); err != nil {
		os.Exit(2)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	began := time.Now()
	for *lasts == 0 || time.Since(began) < *lasts {
		for busy := time.Now(); time.Since(busy) < time.Duration(*duty*float64(period)); {
		}
		wait := time.Duration((1 - *duty) * float64(period))
		if *duty == 0 {
			wait = time.Second
		}
		select {
		case <-ended:
			os.Exit(0)
		case <-time.After(wait):
		}
	}
	os.Exit(*status)
}
