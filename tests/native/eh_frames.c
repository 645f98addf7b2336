/* The tables that compilers and linkers made of this program and its libraries are read, by their header and without
 * it; and damaged ones, which may say anything: the reader ends, and stays in its bounds.
 * Exits with 0 and "ok", or says what was wrong. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "pager/eh_frame.h"

#define ROUNDS 20000

/* A copy of the segment that holds the tables, at the address that it had. */
struct image {
	uint64_t start, len, header, header_len;
	uint8_t *bytes;
	size_t reads;
};

static uint64_t seed = 1;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static int read_image(void *context, uint64_t address, void *to, size_t len)
{
	struct image *image = context;

	image->reads++;
	if (address < image->start || address - image->start > image->len || image->len - (address - image->start) < len)
		return -1;
	memcpy(to, image->bytes + (address - image->start), len);
	return 0;
}

static uint64_t frames_of(const struct image *image)
{
	int32_t offset;

	memcpy(&offset, image->bytes + (image->header - image->start) + 4, sizeof(offset));
	return image->header + 4 + (uint64_t)(int64_t)offset;
}

static uint64_t entry_of(const struct image *image, size_t index)
{
	int32_t offset;

	memcpy(&offset, image->bytes + (image->header - image->start) + 12 + index * 8, sizeof(offset));
	return image->header + (uint64_t)(int64_t)offset;
}

static size_t entries(const struct image *image)
{
	uint32_t count;

	memcpy(&count, image->bytes + (image->header - image->start) + 8, sizeof(count));
	return count;
}

/* Every function: at its start the CFA is right above the return address (psABI, 3.2.2). */
static void whole(struct image *image)
{
	struct eh_memory memory = {read_image, image};
	struct eh_row row, other;
	size_t count = entries(image), known = 0, plain = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t pc = entry_of(image, i);
		if (eh_frame_search(&memory, image->header, image->header_len, pc, &row) < 0)
			continue;
		known++;
		check(row.start == pc && row.end > pc, "%lx: [%lx, %lx)", pc, row.start, row.end);
		plain += row.cfa_register == EH_SP && row.cfa_offset == 8 && row.saved[EH_RETURN].kind == EH_AT_CFA &&
			 row.saved[EH_RETURN].offset == -8;
		if (i % (count / 20 + 1))
			continue;
		pc = row.start + draw(row.end - row.start);
		check(eh_frame_search(&memory, image->header, image->header_len, pc, &row) == 0, "%lx", pc);
		int rc = eh_frame_walk(&memory, frames_of(image), UINT32_MAX, pc, &other);
		check(rc == 0 && !memcmp(&row, &other, sizeof(row)), "%lx: %d without the header", pc, rc);
	}
	check(known >= count - count / 100, "%zu of %zu functions are told", known, count);
	check(plain * 10 >= known * 8, "%zu of %zu begin as functions do", plain, known);
}

static void damaged(struct image *image)
{
	struct eh_memory memory = {read_image, image};
	struct eh_row row;
	size_t count = entries(image), most = 0;
	uint64_t low = image->header, len = image->len, pcs[64];
	uint8_t *whole = malloc(len);

	check(whole, "memory");
	memcpy(whole, image->bytes, len);
	for (size_t i = 0; i < 64; i++)
		pcs[i] = entry_of(image, draw(count)) + draw(64);
	for (int i = 0; i < ROUNDS; i++) {
		size_t places = 1 + draw(4), at[4];
		for (size_t k = 0; k < places; k++) {
			at[k] = (low - image->start) + draw(len - (low - image->start));
			if (draw(4) == 0)
				at[k] = (low - image->start) + draw(16);
			image->bytes[at[k]] = draw(3) ? (uint8_t)draw(256) : 0xff;
		}
		if (draw(4) == 0)
			image->len = draw(len) + 1;
		image->reads = 0;
		for (size_t k = 0; k < 4; k++)
			eh_frame_search(&memory, image->header, image->header_len, pcs[draw(64)], &row);
		eh_frame_walk(&memory, frames_of(image), draw(len), pcs[0], &row);
		most = image->reads > most ? image->reads : most;
		image->len = len;
		for (size_t k = 0; k < places; k++)
			image->bytes[at[k]] = whole[at[k]];
	}
	check(most < 1000000, "%zu reads", most);
	free(whole);
}

static int of_module(struct dl_phdr_info *info, size_t size, void *context)
{
	struct image image = {0};

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME) {
			image.header = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			image.header_len = info->dlpi_phdr[i].p_memsz;
		}
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		uint64_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		if (info->dlpi_phdr[i].p_type == PT_LOAD && image.header - start < info->dlpi_phdr[i].p_memsz) {
			image.start = start;
			image.len = info->dlpi_phdr[i].p_memsz;
		}
	}
	if (!image.len)
		return 0;
	image.bytes = malloc(image.len);
	check(image.bytes, "memory");
	/* Not by memcpy: between variables the sanitizer allows no look. */
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	check(pread(fd, image.bytes, image.len, (off_t)image.start) == (ssize_t)image.len, "%s", info->dlpi_name);
	close(fd);
	if (entries(&image)) {
		whole(&image);
		if (!*(int *)context)
			damaged(&image);
		++*(int *)context;
	}
	free(image.bytes);
	return 0;
}

/* One CIE, one FDE with this program, for the function [0x1000, 0x2000); read at 0x1800. */
static int with_program(const uint8_t *program, size_t len, struct eh_row *row)
{
	static uint8_t bytes[512];
	static const uint8_t cie[] = {20, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x03, 0x0c, 7, 8, 0x90, 1, 0, 0};
	uint32_t head[4] = {(uint32_t)(13 + len), sizeof(cie) + 4, 0x1000, 0x1000};
	struct image image = {.start = 0x9000, .len = sizeof(cie) + 17 + len + 4, .bytes = bytes};
	struct eh_memory memory = {read_image, &image};

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, cie, sizeof(cie));
	memcpy(bytes + sizeof(cie), head, sizeof(head));
	memcpy(bytes + sizeof(cie) + 17, program, len);
	return eh_frame_walk(&memory, 0x9000, image.len, 0x1800, row);
}

#define PROGRAM(...) with_program((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), &row)

static void programs(void)
{
	struct eh_row row;

	check(PROGRAM(0) == 0 && row.cfa_register == EH_SP && row.cfa_offset == 8, "none");
	/* advance 1, CFA + 16, rbp at -16, advance 3, CFA by rbp; then behind the place. */
	check(PROGRAM(0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x04, 0, 0x10, 0, 0, 0x0c, 7, 8) == 0 && row.cfa_register == EH_FP &&
	      row.cfa_offset == 16 && row.saved[EH_FP].offset == -16, "a frame pointer");
	check(PROGRAM(0x0a, 0x0e, 64, 0x0b) == 0 && row.cfa_offset == 8, "remembered");
	check(PROGRAM(0x86, 2, 0xc6) == 0 && row.saved[EH_FP].kind == EH_SAME, "restored");
	check(PROGRAM(0x0b) < 0, "nothing was remembered");
	check(PROGRAM(0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a) < 0, "too much was remembered");
	check(PROGRAM(0x0e, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80) < 0, "a number without an end");
	check(PROGRAM(0x0e, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01) < 0, "a number too large");
	check(PROGRAM(0x3f) < 0 && PROGRAM(0x0c, 99, 8) < 0, "no such instruction, no such register");
	check(PROGRAM(0x0f, 2, 0x76, 0x78) == 0 && row.cfa_register == EH_FP && row.cfa_offset == -8 && !row.indirect, "an expression");
	check(PROGRAM(0x0f, 3, 0x76, 0x78, 0x06) == 0 && row.indirect, "... with what stands there");
	check(PROGRAM(0x0f, 99, 0x76, 0x78) < 0 && PROGRAM(0x0f, 1, 0x06) < 0, "... which is none");
	check(PROGRAM(0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22) == 0 && row.cfa_register == EH_SP &&
	      row.cfa_offset == 8, "a PLT");
	check(PROGRAM(0x10, 6, 2, 0x76, 0x10) == 0 && row.saved[EH_FP].kind == EH_AT && row.saved[EH_FP].offset == 16, "a place");
	check(PROGRAM(0x16, 6, 1, 0x06, 0x14, 3, 1, 0x09, 12, 13) == 0 && row.saved[EH_FP].kind == EH_LOST &&
	      row.saved[3].kind == EH_LOST && row.saved[12].kind == EH_LOST, "what is not followed");
}

int main(void)
{
	int modules = 0;

	programs();
	dl_iterate_phdr(of_module, &modules);
	check(modules >= 2, "%d modules", modules);
	puts("ok");
	return 0;
}
