package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/image"
	"github.com/skerryos/skerry/builder/profile"
)

// releaseCommand groups what is about publishing images.
func releaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "release",
		Short: "Publish images",
	}
	c.AddCommand(releaseIndexCommand())
	return c
}

// releaseOptions are the flags of the command release index.
type releaseOptions struct {
	output, base, icon, date, file string
}

func releaseIndexCommand() *cobra.Command {
	var o releaseOptions
	c := &cobra.Command{
		Use:   "index BOARD...",
		Short: "Make the catalogue by which Raspberry Pi Imager offers the images",
		Long: `Index compresses the images that skerry build has made for the boards, and writes a catalogue of them in the format of Raspberry Pi
Imager. Put the compressed images where --url says, the catalogue anywhere, and give its address to Imager as a custom repository.
What a person then chooses in Imager is written to the boot partition as user-data and network-config, which devices read.`,
		Example: `  skerry release index rpi-arm64 rpi5-arm64 --url https://images.example.com/0.1.0 --icon https://images.example.com/icon.svg`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, boards []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("output") {
				o.output = short(filepath.Join(root, "out"))
			}
			if o.file == "" {
				o.file = filepath.Join(o.output, "os_list.json")
			}
			return releaseIndex(cmd, root, boards, o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "", "folder of the builds' outputs (default: out in the repository)")
	f.StringVar(&o.base, "url", "", "web address of the folder that has the compressed images (required)")
	f.StringVar(&o.icon, "icon", "", "web address of the icon that Imager shows (required)")
	f.StringVar(&o.date, "date", "", "day of the release, such as 2026-11-27 (default: that of the packages)")
	f.StringVar(&o.file, "file", "", "file of the catalogue (default: os_list.json in the output folder)")
	// They fail only for a flag that does not exist.
	_ = c.MarkFlagRequired("url")
	_ = c.MarkFlagRequired("icon")
	return c
}

func releaseIndex(cmd *cobra.Command, root string, boards []string, o releaseOptions) error {
	reporter, stop := reporterFor(cmd.ErrOrStderr())
	defer stop()
	var c image.Catalogue
	for _, name := range boards {
		file, err := find(root, "boards", "board", name)
		if err != nil {
			return err
		}
		board, err := profile.ReadBoard(file)
		if err != nil {
			return err
		}
		if len(board.ImagerDevices) == 0 {
			return fmt.Errorf("cannot list board %s: it has no imagerDevices, so it is none that Raspberry Pi Imager writes images for", board.Name)
		}
		m, err := image.ReadBuild(o.output, board.Name)
		if err != nil {
			return err
		}
		e := image.CatalogueEntry{
			Name: fmt.Sprintf("Skerry %s (%s)", m.Version, board.Name), Description: board.Title, Icon: o.icon,
			URL:         strings.TrimRight(o.base, "/") + "/" + m.Name + ".img.gz",
			ReleaseDate: o.date, Devices: board.ImagerDevices,
		}
		if o.date == "" {
			e.ReleaseDate = time.Unix(m.SourceDate, 0).UTC().Format(time.DateOnly)
		}
		if err := e.SetArchitecture(board.Architecture); err != nil {
			return fmt.Errorf("cannot list board %s: %w", board.Name, err)
		}
		if _, err := e.Compress(cmd.Context(), o.output, m, reporter); err != nil {
			return err
		}
		c.Images = append(c.Images, e)
	}
	data, err := c.Bytes()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(o.file, data, 0o644); err != nil {
		return fmt.Errorf("cannot write the catalogue: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: %d images\n", o.file, len(c.Images))
	return nil
}
