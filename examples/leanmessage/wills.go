package main

import "github.com/parley-im/parley/examples/walk"

// wills loses connections, in more ways than one.
func (t *story) wills() {
	t.Section("Will messages", `
A message that is composed ahead of time, and told to the others when its sender is lost. There is one per session, and the last one counts.`)
	pad := t.Connect(t.login("tom", "pad", 5))
	pad.Listen()
	pad.Command("setWill", walk.M{"conversation": t.chat, "text": "Tom is lost"}, nil)
	ack := pad.Publish(t.messages(), walk.M{"text": "Tom is offline and cannot receive messages", "options": walk.M{"will": true}})
	t.Check(ack.Properties["seq"] == "", "it is kept, and has no number")
	pad.Cut()
	s := t.jerry.Signal(t.chat, "willMessage")
	t.Check(s.Message.Text == "Tom is offline and cannot receive messages" && s.Initiator.Username == t.name("tom") && s.Message.Seq == 0,
		"Jerry is told the last one, as a signal of %s", s.Initiator.Device)
	t.tom.Signal(t.chat, "willMessage")

	t.Say("Who logs out is not lost, and a will can be taken back.")
	pad = t.Connect(t.login("tom", "pad", 5))
	pad.Listen()
	pad.Command("setWill", walk.M{"conversation": t.chat, "text": "Not said"}, nil)
	pad.Leave()
	pad = t.Connect(t.login("tom", "pad", 5))
	pad.Listen()
	pad.Command("setWill", walk.M{"conversation": t.chat, "text": "Not said either"}, nil)
	pad.Command("clearWill", walk.M{}, nil)
	pad.Command("setWill", walk.M{"conversation": t.chat, "text": "Said after all"}, nil)
	pad.Cut()
	t.tom.Signal(t.chat, "willMessage")
	s = t.jerry.Signal(t.chat, "willMessage")
	t.Check(s.Message.Text == "Said after all", "the next that Jerry is told is: %s", s.Message.Text)

	t.Say("The Will of MQTT is a publish like any other. This one is a message to stay.")
	device := t.login("tom", "sensor", 3)
	device.Will = &walk.Will{Topic: t.messages(), Payload: walk.M{"text": "The sensor is gone"}}
	t.Connect(device).Cut()
	_, ev := t.both("sendMessage")
	t.Check(ev.Message.Text == "The sensor is gone" && ev.Seq > 0, "it is in the log, as number %d", ev.Seq)
}
